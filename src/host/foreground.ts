// The user's own command on the terminal of ours: `connect -- cmd`, `intercept … -- cmd`. On a terminal the child stays
// in our process group, because that is the one the terminal's Ctrl-C, Ctrl-Z and input belong to. Without one it gets
// a group of its own, so that ending it ends what it started too.
import { spawn, type ChildProcess } from "node:child_process";
import { isatty } from "node:tty";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { identifyProcess } from "./process.ts";
import type { ProcessEnd, ProcessIdentity } from "./process.ts";

export interface ForegroundOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
  /** Whether a terminal sends its signals to our group; found out when left out. */
  readonly onTerminal?: boolean;
}

export interface ForegroundProcess {
  readonly pid: number;
  /** Undefined when it has ended already. */
  readonly identity: ProcessIdentity | undefined;
  /** Whether it leads a process group of its own. */
  readonly leadsGroup: boolean;
  /** Never rejects. */
  readonly ended: Promise<ProcessEnd>;
  /** Passes on a signal that we got and the child has not. */
  forward(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL when it is still there after `graceMs`. Resolves when it has ended. */
  terminate(graceMs: number): Promise<void>;
}

/** The terminal's driver gives these to every process of its foreground group by itself. */
const terminalSignals: ReadonlySet<string> = new Set(["SIGINT", "SIGQUIT"]);

/** Rejects with `command_failed` when it cannot be started. */
export function startInForeground(
  command: readonly [string, ...string[]],
  options: ForegroundOptions,
): Promise<ForegroundProcess> {
  const [file, ...args] = command;
  const onTerminal = options.onTerminal ?? [0, 1, 2].some((descriptor) => isatty(descriptor));
  const child = spawn(file, args, { stdio: "inherit", detached: !onTerminal, env: { ...options.env } });
  return new Promise((resolve, reject) => {
    child.once("spawn", () => resolve(new RunningChild(child, onTerminal, options.clock)));
    child.once("error", (cause) => reject(startError(file, cause as NodeJS.ErrnoException)));
  });
}

function startError(file: string, cause: NodeJS.ErrnoException): AppError {
  const missing = cause.code === "ENOENT";
  const reason = missing ? "was not found" : `could not be started: ${cause.code ?? cause.message}`;
  return new AppError("command_failed", `the command ${file} ${reason}`, {
    cause,
    hint: missing ? "check its name and PATH" : "check that it is an executable file",
    fields: { file, missing },
  });
}

class RunningChild implements ForegroundProcess {
  readonly pid: number;
  readonly identity: ProcessIdentity | undefined;
  readonly leadsGroup: boolean;
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #onTerminal: boolean;
  readonly #clock: Clock;

  constructor(child: ChildProcess, onTerminal: boolean, clock: Clock) {
    this.#child = child;
    this.#onTerminal = onTerminal;
    this.#clock = clock;
    this.pid = child.pid ?? 0;
    this.identity = identifyProcess(this.pid);
    this.leadsGroup = !onTerminal;
    this.ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => resolve({ code: code ?? undefined, signal: signal ?? undefined }));
    });
  }

  forward(signal: NodeJS.Signals): void {
    if (this.#onTerminal && terminalSignals.has(signal)) return;
    this.#send(signal);
  }

  async terminate(graceMs: number): Promise<void> {
    this.#send("SIGTERM");
    using _kill = this.#clock.after(graceMs, () => this.#send("SIGKILL"));
    await this.ended;
  }

  #send(signal: NodeJS.Signals): void {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    try {
      process.kill(this.#onTerminal ? this.pid : -this.pid, signal);
    } catch {
      // it has just ended
    }
  }
}
