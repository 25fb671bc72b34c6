import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import type { OutputMode, ProgressMode } from "./output.ts";
import { Output } from "./output.ts";

interface Options {
  readonly mode?: OutputMode;
  readonly progress?: ProgressMode;
  readonly terminal?: boolean;
  readonly verbose?: boolean;
}

const open = ({ mode = { kind: "text" }, progress = "auto", terminal = false, verbose = false }: Options = {}) => {
  const seen = { stdout: "", stderr: "" };
  const sink = (name: "stdout" | "stderr") => ({
    write: (text: string) => void (seen[name] += text),
    isTTY: terminal,
    columns: 30,
  });
  const output = new Output({ stdout: sink("stdout"), stderr: sink("stderr"), mode, progress, verbose });
  return { output, seen };
};
const json = { kind: "envelope", syntax: "json" } as const;

describe("text", () => {
  test("goes out at once, warnings on one line, progress nowhere without a terminal", async () => {
    const { output, seen } = open();
    output.progress("working");
    output.line("a result");
    output.warn("one\n  thing");
    await output.finish("list");
    expect(seen).toEqual({ stdout: "a result\n", stderr: "Warning: one thing\n" });
  });

  test("erases progress before anything else is written, and cuts it to the terminal", () => {
    const { output, seen } = open({ terminal: true });
    output.progress("a line of progress that is longer than the terminal");
    output.progress("next");
    output.line("result");
    expect(seen.stderr).toBe("\r\u001b[Ka line of progress that is lo\r\u001b[Knext\r\u001b[K");
  });

  test("--progress plain and quiet", () => {
    const plain = open({ progress: "plain", terminal: true });
    plain.output.progress("one");
    plain.output.progress("one");
    expect(plain.seen.stderr).toBe("one\n");
    const quiet = open({ progress: "quiet", terminal: true });
    quiet.output.progress("one");
    expect(quiet.seen.stderr).toBe("");
  });

  test("shows the causes with --verbose only", async () => {
    const error = new AppError("cluster_unreachable", "no", { cause: new Error("ECONNREFUSED"), hint: "try" });
    const short = open();
    await short.output.finish("connect", error);
    expect(short.seen.stderr).toBe("telepresence: error: no; try\n");
    const long = open({ verbose: true });
    await long.output.finish("connect", error);
    expect(long.seen.stderr).toBe("telepresence: error: no; try\n  caused by Error: ECONNREFUSED\n");
  });
});

describe("--output", () => {
  test("wraps text, warnings and error into one line", async () => {
    const { output, seen } = open({ mode: json });
    output.line("a");
    output.line("b");
    output.warn("w");
    await output.finish("leave", new AppError("busy", "no"));
    expect(seen).toEqual({
      stdout: '{"cmd":"leave","stdout":"a\\nb\\n","stderr":"Warning: w\\n","err":"no","code":"busy"}\n',
      stderr: "",
    });
  });

  test("says nothing when there is nothing to say", async () => {
    const { output, seen } = open({ mode: json });
    await output.finish("leave");
    expect(seen.stdout).toBe("");
  });

  test("leaves bare results bare, and errors never", async () => {
    const { output, seen } = open({ mode: json });
    output.data({ a: 1 }, { bare: true });
    await output.finish("status");
    expect(seen.stdout).toBe('{"a":1}\n');
    const failed = open({ mode: json });
    failed.output.data({ a: 1 }, { bare: true });
    await failed.output.finish("status", new AppError("busy", "no"));
    expect(JSON.parse(failed.seen.stdout)).toEqual({ cmd: "status", stdout: { a: 1 }, err: "no", code: "busy" });
  });
});

describe("--format", () => {
  const object = (syntax: "json" | "json-stream" | "yaml"): OutputMode => ({ kind: "object", syntax });
  test("prints the object alone; a list item by item as a stream", async () => {
    const { output, seen } = open({ mode: object("json-stream") });
    output.data([{ a: 1 }, { a: undefined }]);
    await output.finish("list");
    expect(seen.stdout).toBe('{"a":1}\n{}\n');
    const yaml = open({ mode: object("yaml") });
    yaml.output.data([{ a: 1, b: undefined }]);
    await yaml.output.finish("list");
    expect(yaml.seen.stdout).toBe("- a: 1\n");
  });
  test("prints an error as an object", async () => {
    const { output, seen } = open({ mode: object("json") });
    output.warn("w");
    await output.finish("list", new AppError("busy", "no"));
    expect(seen).toEqual({ stdout: '{"error":"no","code":"busy"}\n', stderr: "Warning: w\n" });
  });
});
