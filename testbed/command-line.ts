// The testbed's command line. Everything it can do is a function of cluster.ts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { AppError, errorCodes, formatError, toAppError } from "#base/error.ts";
import { down, importImage, laptop, status, up, type LaptopOptions, type SpawnSpec } from "./cluster.ts";
import { checkoutRoot, clusterUsers, type ClusterUser } from "./layout.ts";
import { isReachable } from "./laptop.ts";
import { sayWithTime } from "./progress.ts";

const usage = `Usage: npm run cluster -- COMMAND

  up                     bring the one-node Kubernetes cluster up (the first time builds it: 8 to 12 minutes)
  down                   remove it, and everything that runs in it
  status                 say whether it is up, and what runs
  kill-check [ROUNDS]    kill up at many moments and look for what is left; takes the cluster away
  kubectl ARGS…          kubectl as the cluster's admin, on the laptop
  laptop [OPTIONS] [COMMAND ARGS…]
                         a command, or a shell, on the laptop: its network, its resolver, its ordinary user
    --root               as root
    --second             on the second laptop
    --as-user NAME       with the kubeconfig of ${Object.keys(clusterUsers).join(", ")}

TELEPRESENCE_TESTBED=NAME names another cluster beside the usual one, TELEPRESENCE_TESTBED_FAMILY=dual or =ipv6 one
with IPv6.
`;

export interface LaptopCommand {
  readonly options: LaptopOptions;
  readonly argv: readonly string[];
}

/** Options end at the first word that is not one, so that the command keeps its own. */
export function parseLaptop(args: readonly string[]): LaptopCommand {
  const rest = [...args];
  let options: LaptopOptions = {};
  while (rest[0]?.startsWith("-") === true) {
    const option = rest.shift();
    if (option === "--") break;
    if (option === "--root") options = { ...options, user: "root" };
    else if (option === "--second") options = { ...options, laptop: 2 };
    else if (option === "--as-user") options = { ...options, clusterUser: parseUser(rest.shift()) };
    else
      throw new AppError("usage", `laptop has no option ${option}`, { hint: "it has --root, --second and --as-user" });
  }
  return { options, argv: rest.length === 0 ? ["/bin/bash"] : rest };
}

function parseUser(name: string | undefined): ClusterUser {
  if (name !== undefined && Object.hasOwn(clusterUsers, name)) return name as ClusterUser;
  throw new AppError("usage", `--as-user ${name ?? ""} is not one of ${Object.keys(clusterUsers).join(", ")}`);
}

/** What `npm run build` left: so that the product can be tried by hand at once. */
async function offerImages(): Promise<void> {
  const folder = join(checkoutRoot, "dist", "images");
  if (!existsSync(folder)) {
    process.stdout.write("no image of the product in dist/images yet: run `npm run build` and this again\n");
    return;
  }
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".tar"))) await importImage(join(folder, name));
}

const commands: Readonly<Record<string, (rest: readonly string[]) => Promise<number>>> = {
  up: async () => {
    await up({ say: sayWithTime() });
    await offerImages();
    return 0;
  },
  down: async () => {
    await down({ say: sayWithTime() });
    return 0;
  },
  status: async () => {
    process.stdout.write(`${(await status()).join("\n")}\n`);
    return 0;
  },
  kubectl: async (rest) =>
    await attach(laptop(["kubectl", ...rest], { user: "root", env: terminal(), cwd: process.cwd() })),
  "kill-check": async ([rounds = "8"]) => {
    const { killCheck } = await import("./kill-check.ts");
    return (await killCheck(Number(rounds), sayWithTime())) ? 0 : 1;
  },
  laptop: async (rest) => {
    const { argv, options } = parseLaptop(rest);
    // an ordinary user does not start in a folder that it may not enter
    const cwd = options.user === "root" || isReachable(process.cwd()) ? { cwd: process.cwd() } : {};
    return await attach(laptop(argv, { ...options, ...cwd, env: terminal() }));
  },
};

export async function main(args: readonly string[]): Promise<number> {
  const [name = "", ...rest] = args;
  if (name === "" || name === "help" || name === "--help") {
    process.stdout.write(usage);
    return name === "" ? errorCodes.usage.exit : 0;
  }
  try {
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command === undefined) {
      throw new AppError("usage", `there is no command "${name}"`, { hint: "npm run cluster -- help lists them" });
    }
    return await command(rest);
  } catch (error) {
    const known = toAppError(error);
    process.stderr.write(`${formatError(known)}\n`);
    return errorCodes[known.code].exit;
  }
}

function terminal(): Readonly<Record<string, string | undefined>> {
  return { TERM: process.env["TERM"] };
}

/** The program has the terminal; what kills this process ends it, and its exit code is ours. */
async function attach(spec: SpawnSpec): Promise<number> {
  const child = spawn(spec.file, [...spec.args], { stdio: "inherit" });
  const forwarded: readonly NodeJS.Signals[] = ["SIGTERM", "SIGHUP"];
  for (const signal of forwarded) process.on(signal, () => child.kill(signal));
  process.on("SIGINT", () => undefined); // the terminal sends it to both; the program decides
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}
