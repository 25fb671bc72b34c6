// The command line for tests: in this process with caught streams, or as the real child process.
import { spawn } from "node:child_process";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { inject } from "vitest";
import { systemClock } from "#base/clock.ts";
import type { Clock } from "#base/clock.ts";
import { parseCliEnvironment } from "#cli/config.ts";
import { Interrupts } from "#cli/interrupts.ts";
import { openLaptop } from "#cli/laptop.ts";
import type { ProgramName } from "#cli/laptop.ts";
import type { Machine } from "#cli/machine.ts";
import type { Sink } from "#cli/output.ts";
import { runCli } from "#cli/run.ts";

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface InProcessOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly terminal?: boolean;
  readonly interrupts?: Interrupts;
  readonly commandOf?: (program: ProgramName) => readonly string[];
  readonly machine?: (real: Machine) => Machine;
  readonly clock?: Clock;
  /** Sees each piece as it is written. */
  readonly onStdout?: (piece: string) => void;
}

export async function runHere(argv: readonly string[], options: InProcessOptions): Promise<Outcome> {
  const streams = { stdout: "", stderr: "" };
  const sink = (name: "stdout" | "stderr"): Sink => ({
    write: (piece) => {
      streams[name] += piece;
      if (name === "stdout") options.onStdout?.(piece);
    },
    isTTY: options.terminal === true,
    columns: 80,
  });
  const { machine = (real: Machine): Machine => real } = options;
  const code = await runCli({
    argv,
    environment: parseCliEnvironment(options.env, options.cwd ?? "/"),
    stdout: sink("stdout"),
    stderr: sink("stderr"),
    openMachine: async (environment) => machine(await openLaptop(environment, options.commandOf ?? neverStarted)),
    interrupts: options.interrupts ?? new Interrupts(),
    clock: options.clock ?? systemClock,
  });
  return { code, ...streams };
}

/** Programs of a test that must start none. */
const neverStarted = (program: ProgramName): readonly string[] => ["/nonexistent/telepresence", program];

/** What starts the command line's bundle. */
export const startFile = join(inject("programs"), "cli", "start.js");

export interface ChildOptions {
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
}

export function startCli(argv: readonly string[], options: ChildOptions): ChildProcessWithoutNullStreams {
  const child = spawn(process.execPath, [startFile, ...argv], { env: { ...options.env }, cwd: options.cwd ?? "/" });
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  return child;
}

export async function runChild(argv: readonly string[], options: ChildOptions): Promise<Outcome> {
  return outcomeOf(startCli(argv, options));
}

export async function outcomeOf(child: ChildProcessWithoutNullStreams): Promise<Outcome> {
  const [stdout, stderr, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, "close") as Promise<[number | null, string | null]>,
  ]);
  return { code: code ?? -1, stdout, stderr: signal === null ? stderr : `${stderr}[${signal}]` };
}
