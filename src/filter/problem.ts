// Saying where a filter is wrong: one sentence with the line and column, and the line with a caret under it.
import { AppError } from "#base/error.ts";

/** Offsets in UTF-16 units of the text that was compiled. */
export class FilterProblem extends Error {
  readonly at: number;

  constructor(at: number, reason: string) {
    super(reason);
    this.name = "FilterProblem";
    this.at = at;
  }
}

const windowColumns = 100;

/** `subject` begins the sentence: "the filter", "--http-path-regex". */
export function pointAt(subject: string, text: string, problem: FilterProblem): AppError {
  const at = Math.min(problem.at, text.length);
  const lineStart = text.lastIndexOf("\n", at - 1) + 1;
  const lineEnd = text.indexOf("\n", at);
  const line = Array.from(text.slice(lineStart, lineEnd < 0 ? text.length : lineEnd));
  const column = Array.from(text.slice(lineStart, at)).length;
  const row = text.slice(0, lineStart).split("\n").length;
  const where = text.includes("\n") ? `line ${row}, column ${column + 1}` : `column ${column + 1}`;
  const from = Math.max(0, Math.min(column - windowColumns / 2, line.length - windowColumns));
  const shown = line.slice(from, from + windowColumns).map((char) => (isPrintable(char) ? char : " "));
  const indent = "    ";
  return new AppError("usage", `${subject} is wrong at ${where}: ${problem.message}`, {
    hint: `mend it here:\n${indent}${shown.join("")}\n${indent}${" ".repeat(column - from)}^`,
    fields: { column: column + 1 },
  });
}

/** Control characters and those that turn the direction of writing would let a text look like another one. */
export function isPrintable(char: string): boolean {
  return !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(char);
}
