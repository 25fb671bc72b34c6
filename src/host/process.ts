// Starting programs that go on by themselves, and telling whether one is still the same program: a process id is used
// again, so it counts only together with its start time.
import { spawn, type StdioOptions } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import type { Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";

export interface ProcessEnd {
  readonly code: number | undefined;
  readonly signal: string | undefined;
}

export interface StartedProcess {
  readonly pid: number;
  /** Never rejects. Waiting for it does not keep this process alive. */
  readonly ended: Promise<ProcessEnd>;
  /** Asks it to end, as long as it is there: never another process that has its number now. */
  stop(): void;
}

export interface StartOptions {
  /** Output and errors are appended to this file (0600); dropped when left out. */
  readonly logFile?: string;
  /** Becomes standard input; nothing when left out. The caller still closes its own. */
  readonly stdin?: Socket;
  /** A session of its own: no terminal, no signals from it. Not for sudo that must ask. */
  readonly detached: boolean;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Rejects with `command_failed` when it cannot be started at all. */
export function startInBackground(command: readonly string[], options: StartOptions): Promise<StartedProcess> {
  const [file = "", ...args] = command;
  const log = options.logFile === undefined ? undefined : openSync(options.logFile, "a", 0o600);
  const stdio: StdioOptions = [options.stdin ?? "ignore", log ?? "ignore", log ?? "ignore"];
  const child = spawn(file, args, {
    stdio,
    detached: options.detached,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
  });
  child.unref();
  if (log !== undefined) closeSync(log);
  const ended = new Promise<ProcessEnd>((resolve) => {
    child.once("exit", (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined }));
  });
  return new Promise((resolve, reject) => {
    child.once("spawn", () => resolve({ pid: child.pid ?? 0, ended, stop: () => void child.kill() }));
    child.once("error", (cause) => {
      reject(new AppError("command_failed", `the program ${file} could not be started`, { cause, fields: { file } }));
    });
  });
}

/** A process as nobody else can be it. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between the machine's start and its own (proc(5), field 22). */
  readonly startTicks: number;
}

/** Undefined when there is no such process. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  try {
    return parseProcessStat(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return undefined; // no such process
  }
}

/** proc(5): the command's name is in brackets and may itself hold spaces and brackets. Zombies count as ended. */
export function parseProcessStat(text: string): ProcessIdentity | undefined {
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const startTicks = Number(fields[19]);
  if (!Number.isSafeInteger(pid) || !Number.isSafeInteger(startTicks)) return undefined;
  return fields[0] === "Z" || fields[0] === "X" ? undefined : { pid, startTicks };
}

/** Whether that very process is still running. */
export function isSameProcess(identity: ProcessIdentity): boolean {
  return identifyProcess(identity.pid)?.startTicks === identity.startTicks;
}

export interface EndOptions {
  /** Its whole group, which it leads. */
  readonly group: boolean;
  /** From SIGTERM to SIGKILL. */
  readonly graceMs: number;
  readonly clock: Clock;
}

/** chosen: between two looks whether a process that is no child of ours has ended. */
const endPollMs = 25;

/** Ends a process that need not be our child: SIGTERM, then SIGKILL. Resolves when it has got what it takes. */
export async function endProcess(identity: ProcessIdentity, { group, graceMs, clock }: EndOptions): Promise<void> {
  const signal = (name: NodeJS.Signals): void => {
    try {
      if (isSameProcess(identity)) process.kill(group ? -identity.pid : identity.pid, name);
    } catch {
      // it has just ended, or is not ours to end
    }
  };
  signal("SIGTERM");
  signal("SIGCONT"); // one that was stopped hears nothing
  for (let waitedMs = 0; waitedMs < graceMs && isSameProcess(identity); waitedMs += endPollMs) {
    await clock.sleep(endPollMs, unending);
  }
  signal("SIGKILL");
}

const unending = new AbortController().signal;

/** Whether some process has this id now. */
export function isAlive(pid: number): boolean {
  return identifyProcess(pid) !== undefined;
}

/** chosen: deeper than sudo and a launcher go, and an end to a walk over a changing tree. */
const maxDescendants = 64;

/**
 * Words of the command lines of a process and of all that it has started, itself first. Without what /proc does not
 * show: other users' processes may be hidden, and some kernels name no children.
 */
export function commandLinesBelow(pid: number): readonly (readonly string[])[] {
  const found = [pid];
  for (let index = 0; index < found.length && found.length < maxDescendants; index++) {
    found.push(...childrenOf(found[index] ?? 0));
  }
  return found.map((each) => readIfThere(`/proc/${each}/cmdline`).split("\0").slice(0, -1));
}

function childrenOf(pid: number): readonly number[] {
  const ids = readIfThere(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean);
  return ids.map(Number);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // it has ended
  }
}
