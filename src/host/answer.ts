// What a person types in answer to a question.
import { createInterface } from "node:readline";
import { isatty } from "node:tty";

/** Whether somebody can read a question on stderr and answer it on stdin. */
export function canAnswer(): boolean {
  return isatty(0) && isatty(2);
}

/** One line of the input, "" at its end; rejects with the signal's reason. */
export async function readAnswer(input: NodeJS.ReadableStream, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  const lines = createInterface({ input, terminal: false }); // not as a terminal: Ctrl-C stays the process's business
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const onAbort = (): void => reject(signal.reason as Error);
  signal.addEventListener("abort", onAbort, { once: true });
  lines.once("line", resolve);
  lines.once("close", () => resolve(""));
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", onAbort);
    lines.close();
  }
}
