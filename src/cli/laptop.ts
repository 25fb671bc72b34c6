// The Machine of a real laptop: paths and programs by way of host/.
import { existsSync, readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { ensureDirectory, ensureRuntimeDirectory, hostPaths, type HostPaths } from "#host/paths.ts";
import { isConnectionName } from "#wire/connection-name.ts";
import { helperServiceSocket } from "#wire/helper-service.ts";
import type { CliEnvironment } from "./config.ts";
import type { ForegroundChild, ForegroundCommand, HelperStart, Machine, StartedProgram } from "./machine.ts";

/** Programs behind this program's name. */
export type ProgramName = "daemon" | "helper" | "cloud";

/** How a program is started: by the launcher of dist/, or from its source in a checkout. */
function programCommand(program: ProgramName): readonly string[] {
  const here = import.meta.dirname;
  const launcher = join(here, "..", "bin", "telepresence");
  if (existsSync(launcher)) return [launcher, program];
  return [process.execPath, join(here, "..", program, "main.ts")];
}

/** The launcher's command line and that of the program it becomes. */
const isHelperCommand = (words: readonly string[]): boolean => words.some((word) => /(^|\/)helper(\/|$)/.test(word));

export async function openLaptop(
  environment: CliEnvironment,
  commandOf: (program: ProgramName) => readonly string[] = programCommand,
  connection?: string,
): Promise<Machine> {
  const paths = hostPaths(environment.all, undefined, connection);
  // A directory that somebody else made in /tmp may hold somebody else's daemon, and it would be sent our credentials.
  if (existsSync(paths.runtime)) ensureRuntimeDirectory(paths.runtime);
  const places = placesOf(paths, connection);
  const privilege = await import("#host/privilege.ts");
  const { hasTerminal, isRoot, privilegedCommand, privilegedCommandLine, sudoHasBegun } = privilege;
  const { canAnswer, readAnswer } = await import("#host/answer.ts");
  const { isAlive, startInBackground } = await import("#host/process.ts");

  const start = async (command: readonly string[], log: string, detached: boolean, stdin?: Socket) => {
    ensureDirectory(paths.log);
    const from = await sizeOf(log);
    const env = environment.all;
    const options = { logFile: log, detached, env, cwd: "/", ...(stdin === undefined ? {} : { stdin }) };
    const { pid, ended, stop } = await startInBackground(command, options);
    return { pid, ended, stop, lastWords: () => lastLogMessage(log, from) };
  };

  const lock = async (name: string): Promise<Disposable | undefined> => {
    ensureRuntimeDirectory(paths.runtime);
    const { tryLock } = await import("#host/lock.ts");
    return tryLock(join(paths.runtime, name));
  };

  return {
    ...places,
    about: (other) => openLaptop(environment, commandOf, other),
    isRoot: isRoot(),
    get hasTerminal() {
      return hasTerminal();
    },
    readAnswer: canAnswer() ? (signal) => readAnswer(process.stdin, signal) : undefined,
    helperCommandLine: privilegedCommandLine(commandOf("helper")),
    ...helperService(environment, commandOf),
    get cloudCommand() {
      return commandOf("cloud");
    },
    tryStartLock: () => lock("start.lock"),
    openCloudPlaces: async () => (await import("./cloud/places.ts")).openCloudPlaces(environment),
    tryHelperLock: () => lock("helper.lock"),
    startDaemon: () => {
      ensureRuntimeDirectory(paths.runtime);
      const command = [...commandOf("daemon"), ...(connection === undefined ? [] : [connection])];
      return start(command, places.daemonLog, true);
    },
    startHelper: (how: HelperStart, socket: Socket): Promise<StartedProgram> => {
      const command = privilegedCommand(commandOf("helper"), how === "sudo-on-terminal" ? "ask" : "quiet");
      return start(command, places.helperLog, how !== "sudo-on-terminal", socket);
    },
    helperHasBegun: (sudoPid) => sudoHasBegun(sudoPid, isHelperCommand),
    startForeground,
    ...privateNetworks(commandOf),
    isAlive,
    isListening: async (port) => (await import("#host/listening.ts")).isListening(port),
  };
}

function placesOf(
  paths: HostPaths,
  connection: string | undefined,
): Pick<
  Machine,
  "connection" | "namedConnections" | "controlSocket" | "helperSocket" | "daemonLog" | "helperLog" | "configFile"
> {
  const suffix = connection === undefined ? "" : `-${connection}`;
  return {
    connection,
    namedConnections: () => (existsSync(paths.named) ? readdirSync(paths.named).filter(isConnectionName) : []),
    controlSocket: paths.daemonSocket,
    helperSocket: paths.helperSocket,
    daemonLog: join(paths.log, `daemon${suffix}.log`),
    helperLog: join(paths.log, `helper${suffix}.log`),
    configFile: join(paths.config, "config.yml"),
  };
}

function helperService(
  environment: CliEnvironment,
  commandOf: (program: ProgramName) => readonly string[],
): Pick<Machine, "helperService" | "openServicePlaces"> {
  return {
    helperService: existsSync(helperServiceSocket(process.getuid?.() ?? 0)),
    openServicePlaces: async () =>
      (await import("./connection/helper-service.ts")).openServicePlaces(environment, commandOf("helper")),
  };
}

function privateNetworks(
  commandOf: (program: ProgramName) => readonly string[],
): Pick<Machine, "requirePrivateNetworks" | "privateCommand"> {
  return {
    requirePrivateNetworks: async (signal) =>
      (await import("#host/private-network.ts")).requirePrivateNetworks(systemClock, signal),
    privateCommand: async ({ socket, id }, command) => {
      const { unshareCommand } = await import("#host/private-network.ts");
      return unshareCommand([...commandOf("helper"), "enter", socket, String(id), "--", ...command]);
    },
  };
}

async function startForeground({ command, env }: ForegroundCommand): Promise<ForegroundChild> {
  const { startInForeground } = await import("#host/foreground.ts");
  return startInForeground(command, { env, clock: systemClock });
}

async function sizeOf(path: string): Promise<number> {
  try {
    await using file = await open(path);
    return (await file.stat()).size;
  } catch {
    return 0; // not there yet
  }
}

/** chosen: more of a log than any last line. */
const tailBytes = 64 * 1024;

/** The last line that was written after the first `from` bytes: a JSON line's message and error, or the line itself. */
export async function lastLogMessage(path: string, from: number): Promise<string | undefined> {
  const line = (await readTail(path, from)).trimEnd().split("\n").at(-1)?.trim();
  if (line === undefined || line === "") return undefined;
  try {
    const parsed = JSON.parse(line) as { readonly msg?: unknown; readonly error?: unknown };
    const parts = [parsed.msg, parsed.error].filter((part) => typeof part === "string");
    return parts.length > 0 ? parts.join(": ") : line.slice(0, 500);
  } catch {
    return line.slice(0, 500);
  }
}

async function readTail(path: string, from: number): Promise<string> {
  try {
    await using file = await open(path);
    const { size } = await file.stat();
    const start = Math.max(from, size - tailBytes);
    const { buffer, bytesRead } = await file.read({ position: start, buffer: Buffer.alloc(Math.max(0, size - start)) });
    return buffer.toString("utf8", 0, bytesRead);
  } catch {
    return ""; // no log, no message
  }
}
