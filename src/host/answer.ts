// What a person types in answer to a question.
import { createInterface } from "node:readline";
import { isatty } from "node:tty";
import { raceSignal } from "#base/abort.ts";

/** Whether somebody can read a question on stderr and answer it on stdin. */
export function canAnswer(): boolean {
  return isatty(0) && isatty(2);
}

/** One line of the input, "" at its end; rejects with the signal's reason. */
export async function readAnswer(input: NodeJS.ReadableStream, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted();
  const lines = createInterface({ input, terminal: false }); // not as a terminal: Ctrl-C stays the process's business
  const { promise, resolve } = Promise.withResolvers<string>();
  lines.once("line", resolve);
  lines.once("close", () => resolve(""));
  try {
    return await raceSignal(promise, signal);
  } finally {
    lines.close();
  }
}
