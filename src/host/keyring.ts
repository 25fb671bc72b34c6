// The desktop's keyring by libsecret's `secret-tool`, where both are there. A secret goes by standard input and output,
// never in argv. A keyring that is locked or hangs is as good as none: callers keep the secret elsewhere.
import { exec } from "./exec.ts";
import type { ExecOptions } from "./exec.ts";

/** Each resolves with what says "it did not work", never rejects. */
export interface Keyring {
  store(name: string, secret: string): Promise<boolean>;
  read(name: string): Promise<string | undefined>;
  remove(name: string): Promise<void>;
}

/** chosen: somebody may have to unlock it on the screen. */
const timeoutMs = 30_000;
const attributes = (name: string): readonly string[] => ["application", "telepresence", "server", name];

/** A desktop's session has a bus, and over it goes whatever keyring there is. */
export function mayHaveKeyring(env: Readonly<Record<string, string | undefined>>): boolean {
  return (env["DBUS_SESSION_BUS_ADDRESS"] ?? "") !== "";
}

export function openKeyring(env: Readonly<Record<string, string>>, clock: ExecOptions["clock"]): Keyring {
  const run = async (words: readonly string[], input?: string): Promise<string | undefined> => {
    try {
      const options = { timeoutMs, clock, env, ...(input === undefined ? {} : { input }) };
      const { exitCode, stdout } = await exec("secret-tool", words, options);
      return exitCode === 0 ? stdout : undefined;
    } catch {
      return undefined; // not installed, or it hangs
    }
  };
  return {
    store: async (name, secret) =>
      (await run(["store", `--label=Telepresence at ${name}`, ...attributes(name)], secret)) !== undefined,
    read: (name) => run(["lookup", ...attributes(name)]),
    remove: async (name) => void (await run(["clear", ...attributes(name)])),
  };
}
