// Several connections at once: each has a daemon of its own, in a folder with the connection's name. Which of them a
// command is about is settled before the command begins, so that no command has to know of the others.
import { AppError } from "#base/error.ts";
import { isConnectionName, unnamedConnection } from "#wire/connection-name.ts";
import { connectSocket } from "./daemon-socket.ts";
import type { ConnectFlags, GlobalFlags } from "#cli/flags/flags.ts";
import { namesPlace } from "#cli/flags/flags.ts";
import type { Machine } from "#cli/machine.ts";

/** About all of them, or about none: they choose by themselves. */
const aboutAll: readonly string[] = ["status", "version", "quit", "login", "logout", "cloud", "helper", "help"];
/** Between the command and a cloud server, or a cluster that it names itself. */
const aboutNone: readonly string[] = [
  ...["list", "share", "public", "private"].map((word) => `preview ${word}`),
  "cloud install",
  "cloud uninstall",
];

/** The machine, seen by the connection that the command's flags mean. */
export async function chooseConnection(
  machine: Machine,
  command: string,
  flags: GlobalFlags & ConnectFlags & { readonly local?: boolean },
): Promise<Machine> {
  const { name, use } = flags;
  if (name !== undefined && use !== undefined) throw new AppError("usage", "--name and --use exclude each other");
  if (name !== undefined) return byName(machine, name);
  if (use !== undefined) return command === "quit" ? machine : await requireUsed(machine, use);
  // Whoever says a place and no name means the connection without one, and so does `connect`.
  if ([...aboutAll, ...aboutNone].includes(command) || command === "connect" || namesPlace(flags)) return machine;
  if (command === "dashboard" && flags.local !== true) return machine; // the team's, on its server
  return theOne(machine);
}

/** Those whose daemons run, the one without a name first. */
export async function runningConnections(machine: Machine): Promise<readonly Machine[]> {
  const names = [undefined, ...machine.namedConnections().toSorted()];
  const running = await Promise.all(
    names.map(async (name) => {
      const each = name === machine.connection ? machine : await machine.about(name);
      return (await isRunning(each)) ? [each] : [];
    }),
  );
  return running.flat();
}

export const nameOf = ({ connection }: Machine): string => connection ?? unnamedConnection;

async function byName(machine: Machine, name: string): Promise<Machine> {
  if (name === "" || name === unnamedConnection) return machine;
  if (isConnectionName(name)) return machine.about(name);
  throw new AppError("usage", `--name is "${name}", expected lower-case letters, digits and dashes, 40 at most`);
}

/** Without a word: the one without a name, unless there is but one, and that has a name. */
async function theOne(machine: Machine): Promise<Machine> {
  if (machine.namedConnections().length === 0) return machine;
  const running = await runningConnections(machine);
  const [first, second] = running;
  if (first === undefined || first.connection === undefined) return machine;
  if (second === undefined) return first;
  throw new AppError("ambiguous", `there are several connections: ${running.map(nameOf).join(", ")}`, {
    hint: "say which with --use NAME",
  });
}

async function requireUsed(machine: Machine, use: string): Promise<Machine> {
  const running = await runningConnections(machine);
  const found = findUsed(running, use);
  if (found !== undefined) return found;
  throw new AppError("not_connected", `--use "${use}" matches no connection`, {
    hint: running.length === 0 ? "there is none now" : `running now: ${running.map(nameOf).join(", ")}`,
  });
}

/** A whole name counts more than a part of several. Undefined when none matches. */
export function findUsed(running: readonly Machine[], use: string): Machine | undefined {
  const expression = readExpression(use);
  const exact = running.filter((each) => nameOf(each) === use);
  const matching = exact.length > 0 ? exact : running.filter((each) => expression.test(nameOf(each)));
  if (matching.length < 2) return matching[0];
  const names = (machines: readonly Machine[]): string => machines.map(nameOf).join(", ");
  throw new AppError("ambiguous", `--use "${use}" matches several connections: ${names(matching)}`, {
    hint: `running now: ${names(running)}`,
  });
}

function readExpression(use: string): RegExp {
  try {
    return new RegExp(use);
  } catch (cause) {
    throw new AppError("usage", `--use is "${use}", expected a regular expression`, { cause });
  }
}

async function isRunning({ controlSocket }: Machine): Promise<boolean> {
  const socket = await connectSocket(controlSocket);
  socket?.destroy();
  return socket !== undefined;
}
