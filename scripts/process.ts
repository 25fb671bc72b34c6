// Child processes of the scripts: inherited or captured output, and the exit code as a number.
import { spawn } from "node:child_process";
import { projectRoot } from "./bundle.ts";

export interface CapturedRun {
  readonly code: number;
  readonly output: string;
  readonly ms: number;
}

/** Runs with the terminal; resolves to the exit code, 1 for a signal. What we are told to end, it is told, too. */
export async function runInherited(command: string, args: readonly string[]): Promise<number> {
  const child = spawn(command, args, { cwd: projectRoot, stdio: "inherit" });
  const handOn = (signal: NodeJS.Signals): void => void child.kill(signal);
  // A terminal's Ctrl-C reaches it by itself (run.mjs).
  const names = ["SIGTERM", "SIGHUP", ...(process.stdin.isTTY ? [] : ["SIGINT"])] as const;
  for (const name of names) process.on(name, handOn);
  try {
    return await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code) => resolve(code ?? 1));
    });
  } finally {
    for (const name of names) process.off(name, handOn);
  }
}

/** Runs and keeps what it writes, both streams in one. */
export function runCaptured(
  command: string,
  args: readonly string[],
  more: Readonly<Record<string, string>> = {},
): Promise<CapturedRun> {
  const startedMs = performance.now();
  const env = { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, ...more };
  const child = spawn(command, args, { cwd: projectRoot, stdio: ["ignore", "pipe", "pipe"], env });
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString(), ms: performance.now() - startedMs });
    });
  });
}
