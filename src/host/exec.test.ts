import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { FakeClock } from "#base/clock.fake.ts";
import { isAppError } from "#base/error.ts";
import { exec, execOk, formatCommand } from "./exec.ts";

const options = { clock: systemClock, timeoutMs: 10_000 };
const node = (script: string): readonly [string, readonly string[]] => [process.execPath, ["-e", script]];

describe("exec()", () => {
  test("gives output, errors and exit code apart; arguments are no shell's", async () => {
    const script = "console.log(process.argv[1]); console.error('bad'); process.exitCode = 3";
    const result = await exec(process.execPath, ["-e", script, "$(id) ; *"], options);
    expect(result).toEqual({ stdout: "$(id) ; *\n", stderr: "bad\n", exitCode: 3 });
  });
  test("has no standard input and keeps at most 1 MiB", async () => {
    const result = await exec(...node("process.stdin.on('end', () => console.log('x'.repeat(3e6))).resume()"), options);
    expect(result.stdout.length).toBe(1024 * 1024);
  });
  test("says a signal as shells do", async () => {
    expect((await exec(...node("process.kill(process.pid, 'SIGKILL')"), options)).exitCode).toBe(137);
  });
  test("names a program that is not there", async () => {
    await expect(exec("no-such-program", [], options)).rejects.toThrow("the program no-such-program was not found");
  });
  test("kills a program that outlives its limit", async () => {
    const clock = new FakeClock();
    const running = exec(...node("setInterval(() => undefined, 1000)"), { clock, timeoutMs: 2000 });
    const outcome = running.catch((error: unknown) => error);
    await clock.advance(2000);
    expect(isAppError(await outcome, "timeout")).toBe(true);
    expect(clock.pending).toBe(0);
  });
  test("kills a program whose caller gives up, and starts none for one that has", async () => {
    const controller = new AbortController();
    const running = exec(...node("setInterval(() => undefined, 1000)"), { ...options, signal: controller.signal });
    controller.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
    await expect(exec("true", [], { ...options, signal: controller.signal })).rejects.toThrow("enough");
  });
});

describe("execOk()", () => {
  test("quotes the first line a failing program said", async () => {
    await expect(
      execOk(...node("console.error('no such link\\nmore'); process.exitCode = 1"), options),
    ).rejects.toThrow("ended with exit code 1: no such link");
  });
});

describe("formatCommand()", () => {
  test("quotes what a shell would take apart", () => {
    expect(formatCommand(["sudo", "/opt/a b/telepresence", "it's", "--x=1"])).toBe(
      `sudo '/opt/a b/telepresence' 'it'\\''s' --x=1`,
    );
  });
});
