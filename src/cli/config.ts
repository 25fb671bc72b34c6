// The command's environment, read once. Everything else is handed what it needs of it.
import { resolve } from "node:path";

/** What the environment says about this command. */
export interface CliEnvironment {
  /** The whole environment, for the daemon (credential plugins, KUBECONFIG, proxies) and for `-- cmd`. */
  readonly all: Readonly<Record<string, string>>;
  readonly cwd: string;
  readonly image: ImageEnvironment;
}

export interface ImageEnvironment {
  readonly registry: string | undefined;
  readonly image: string | undefined;
  readonly pullPolicy: string | undefined;
}

export function readCliEnvironment(): CliEnvironment {
  const all: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) all[name] = value;
  return parseCliEnvironment(all, currentDirectory(all["PWD"]));
}

export function parseCliEnvironment(all: Readonly<Record<string, string>>, cwd: string): CliEnvironment {
  return {
    all,
    cwd,
    image: {
      registry: set(all["TELEPRESENCE_REGISTRY"]),
      image: set(all["TELEPRESENCE_AGENT_IMAGE"]) ?? set(all["TELEPRESENCE_MANAGER_IMAGE"]),
      pullPolicy: set(all["TELEPRESENCE_IMAGE_PULL_POLICY"]),
    },
  };
}

const set = (value: string | undefined): string | undefined => (value === "" ? undefined : value);

/** The working directory may have been removed under the shell; commands that need no file still work. */
function currentDirectory(pwd: string | undefined): string {
  try {
    return process.cwd();
  } catch {
    return resolve("/", pwd ?? "/");
  }
}
