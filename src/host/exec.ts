// Runs another program to its end: a file and an argument array, never a shell. Output is captured and bounded; a
// program that outlives its limit or its caller is killed, and waited for.
import { spawn, type ChildProcess } from "node:child_process";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";

export interface ExecOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** The whole environment of the program; by default ours. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Its standard input; nothing by default. */
  readonly input?: string;
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
  /** 128 + signal number when a signal ended it, as shells say it. */
  readonly exitCode: number;
}

/** chosen: what is kept of each output; the rest is read and dropped, so that the program never blocks. */
const maxOutputBytes = 1024 * 1024;
const signalNumbers: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGPIPE: 13, SIGTERM: 15 };

/** Resolves with whatever the program's exit code was. Rejects when it cannot be started, or was ended by us. */
export async function exec(file: string, args: readonly string[], options: ExecOptions): Promise<ExecResult> {
  using limit = deadline(options.clock, options.timeoutMs, `\`${formatCommand([file, ...args])}\``, options.signal);
  limit.signal.throwIfAborted();
  const child = spawn(file, args, {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(options.env === undefined ? {} : { env: { ...options.env } }),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  child.stdin?.on("error", () => undefined); // it has ended, or reads nothing
  child.stdin?.end(options.input);
  const kill = (): void => void child.kill("SIGKILL");
  limit.signal.addEventListener("abort", kill, { once: true });
  try {
    const result = await collect(child, file);
    limit.signal.throwIfAborted();
    return result;
  } finally {
    limit.signal.removeEventListener("abort", kill);
  }
}

/** As `exec`, but an exit code other than 0 is an error that quotes what the program said. */
export async function execOk(file: string, args: readonly string[], options: ExecOptions): Promise<string> {
  const { exitCode, stdout, stderr } = await exec(file, args, options);
  if (exitCode === 0) return stdout;
  const said = (stderr.trim() || stdout.trim()).split("\n")[0] ?? "";
  const command = formatCommand([file, ...args]);
  throw new AppError("command_failed", `\`${command}\` ended with exit code ${exitCode}${said && `: ${said}`}`, {
    fields: { file, exitCode },
  });
}

/** A command as people would type it; quotes only where a shell would need them. */
export function formatCommand(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}

function collect(child: ChildProcess, file: string): Promise<ExecResult> {
  const stdout = capture(child.stdout);
  const stderr = capture(child.stderr);
  return new Promise((resolve, reject) => {
    child.once("error", (cause) => {
      const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
      const message = missing ? `the program ${file} was not found` : `the program ${file} could not be started`;
      reject(new AppError("command_failed", message, { cause, fields: { file, missing } }));
    });
    child.once("close", (code, signal) => {
      const exitCode = code ?? 128 + (signalNumbers[signal ?? ""] ?? 0);
      resolve({ stdout: stdout(), stderr: stderr(), exitCode });
    });
  });
}

function capture(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  let held = 0;
  stream?.on("data", (chunk: Buffer) => {
    const kept = chunk.subarray(0, maxOutputBytes - held);
    held += kept.length;
    if (kept.length > 0) chunks.push(kept);
  });
  return () => Buffer.concat(chunks).toString("utf8");
}
