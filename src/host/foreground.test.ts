import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import { startInForeground } from "./foreground.ts";
import { isAlive } from "./process.ts";

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
    const folder = mkdtempSync(join(tmpdir(), "telepresence-foreground-"));
    const file = join(folder, "pid");
    const script = `trap '' TERM; sleep 100 & echo $! > ${file}; while :; do wait; done`;
    const child = await startInForeground(["sh", "-c", script], options);
    const grandchild = (): number => (existsSync(file) ? Number(readFileSync(file, "utf8")) : 0);
    await expect.poll(grandchild, { timeout: 5000 }).toBeGreaterThan(0); // from here on the trap is set
    const pid = grandchild();
    await child.terminate(50);
    expect(await child.ended).toEqual({ code: undefined, signal: "SIGKILL" });
    await expect.poll(() => isAlive(pid), { timeout: 5000 }).toBe(false);
    rmSync(folder, { recursive: true });
  });

  test("names a command that is not there", async () => {
    const started = startInForeground(["no-such-command-7"], options);
    const error = await started.catch((reason: unknown) => reason);
    expect(isAppError(error, "command_failed") && error.message).toBe("the command no-such-command-7 was not found");
  });
});
