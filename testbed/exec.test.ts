import { expect, test } from "vitest";
import { lastLines, run } from "./exec.ts";

const node = (script: string): readonly string[] => ["-e", script];

test("run() gives back what was said and hands on each line of both outputs", async () => {
  const lines: string[] = [];
  const script = 'process.stdin.pipe(process.stdout); console.error("to stderr")';
  const result = await run(process.execPath, node(script), { input: "a\nb\n", onLine: (line) => lines.push(line) });
  expect(result).toEqual({ code: 0, stdout: "a\nb\n", stderr: "to stderr\n" });
  expect(lines.toSorted()).toEqual(["a", "b", "to stderr"]);
});

test("run() names the command, its code and its last words when it fails", async () => {
  const failing = node('console.error("no such thing"); process.exitCode = 3');
  await expect(run(process.execPath, failing)).rejects.toThrow(/-e .* ended with code 3: no such thing/);
  await expect(run(process.execPath, failing, { allowFailure: true })).resolves.toMatchObject({ code: 3 });
});

test("run() ends a program that takes too long, and says so", async () => {
  const slow = run(process.execPath, node("setInterval(() => {}, 1000)"), { timeoutMs: 200, allowFailure: true });
  await expect(slow).rejects.toMatchObject({ code: "timeout", message: expect.stringContaining("within 0.2 s") });
});

test("run() names a program that is not there", async () => {
  await expect(run("/nowhere/program", [])).rejects.toThrow("/nowhere/program could not be started");
});

test("lastLines() leaves out what is empty", () => {
  expect(lastLines("a\n\nb\nc\n\n", 2)).toBe("b\nc");
});
