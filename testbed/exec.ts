// Runs programs for the testbed: a file and an argument array, never a shell string. A failure is one sentence with
// the end of what the program said.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { openSync, closeSync } from "node:fs";
import { constants } from "node:os";
import { AppError, type ErrorCode } from "#base/error.ts";

export interface RunOptions {
  readonly input?: string | undefined;
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** Killed after this long. Default: two minutes. */
  readonly timeoutMs?: number | undefined;
  /** Does not throw on a failing exit code. */
  readonly allowFailure?: boolean | undefined;
  /** Called with each line of both outputs as it comes. */
  readonly onLine?: ((line: string) => void) | undefined;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const defaultTimeoutMs = 120_000;

/** The environment of every program: the administrator's folders are on PATH even where `su` left them out. */
export function systemEnv(): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) env[name] = value;
  const path = env["PATH"] ?? "/usr/local/bin:/usr/bin:/bin";
  return { ...env, PATH: `${path}:/usr/local/sbin:/usr/sbin:/sbin` };
}

export async function run(file: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const child = spawn(file, [...args], {
    stdio: ["pipe", "pipe", "pipe"],
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env: { ...systemEnv(), ...options.env },
  });
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    child.kill("SIGKILL");
  }, timeoutMs);
  const stdout = collect(child.stdout, options.onLine);
  const stderr = collect(child.stderr, options.onLine);
  child.stdin.on("error", () => undefined); // the program may end without reading its input
  child.stdin.end(options.input ?? "");
  try {
    const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    const exit = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
    const result = { code: exit, stdout: stdout(), stderr: stderr() };
    const command = [file, ...args];
    if (timedOut) throw failure("timeout", command, `did not end within ${timeoutMs / 1000} s`, result);
    if (exit !== 0 && options.allowFailure !== true) {
      throw failure("command_failed", command, `ended with code ${exit}`, result);
    }
    return result;
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw new AppError("command_failed", `${file} could not be started: ${(error as Error).message}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function collect(stream: NodeJS.ReadableStream, onLine?: (line: string) => void): () => string {
  let text = "";
  let pending = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    text += chunk;
    if (onLine === undefined) return;
    const lines = (pending + chunk).split("\n");
    pending = lines.pop() ?? "";
    lines.forEach(onLine);
  });
  return () => text;
}

function failure(code: ErrorCode, command: readonly string[], what: string, result: RunResult): AppError {
  const said = lastLines(`${result.stdout}\n${result.stderr}`, 6);
  const shown = command.join(" ").slice(0, 300);
  return new AppError(code, `${shown} ${what}${said === "" ? "" : `: ${said}`}`, { fields: { ...result } });
}

/** The last lines that say anything. */
export function lastLines(text: string, count: number): string {
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  return lines.slice(-count).join("\n");
}

/** Starts a program that outlives this one, in a session of its own, its output appended to a file. */
export function startDaemon(file: string, args: readonly string[], logFile: string): ChildProcess {
  const log = openSync(logFile, "a", 0o644);
  try {
    const child = spawn(file, [...args], { detached: true, stdio: ["ignore", log, log], env: systemEnv(), cwd: "/" });
    child.on("error", () => undefined); // seen as a process that is not there
    child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}
