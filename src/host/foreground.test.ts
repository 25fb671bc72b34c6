import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import { startInForeground } from "./foreground.ts";

const env = { PATH: process.env["PATH"] ?? "/usr/bin:/bin" };
const options = { env, clock: systemClock, onTerminal: false };

describe("startInForeground()", () => {
  test("keeps the exit code", async () => {
    const child = await startInForeground(["sh", "-c", "exit 7"], options);
    expect(await child.ended).toEqual({ code: 7, signal: undefined });
  });

  test("passes signals on", async () => {
    const child = await startInForeground(["sleep", "100"], options);
    child.forward("SIGINT");
    expect(await child.ended).toEqual({ code: undefined, signal: "SIGINT" });
  });

  test("leaves the terminal's own signals to the terminal", async () => {
    const child = await startInForeground(["sleep", "100"], { ...options, onTerminal: true });
    child.forward("SIGINT");
    child.forward("SIGTERM");
    expect(await child.ended).toEqual({ code: undefined, signal: "SIGTERM" });
  });

  test("kills what does not want to end, with what it started", async () => {
    const child = await startInForeground(["sh", "-c", "trap '' TERM; sleep 100; sleep 100"], options);
    await child.terminate(50);
    expect(await child.ended).toEqual({ code: undefined, signal: "SIGKILL" });
    expect(() => process.kill(-child.pid, 0)).toThrow(); // nothing of its group is left
  });

  test("names a command that is not there", async () => {
    const started = startInForeground(["no-such-command-7"], options);
    const error = await started.catch((reason: unknown) => reason);
    expect(isAppError(error, "command_failed") && error.message).toBe("the command no-such-command-7 was not found");
  });
});
