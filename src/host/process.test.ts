import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  commandLinesBelow,
  identifyProcess,
  isAlive,
  isSameProcess,
  parseProcessStat,
  startInBackground,
} from "./process.ts";

describe("startInBackground()", () => {
  test("runs in a session of its own and writes to its log", async () => {
    const directory = mkdtempSync(join(tmpdir(), "process-"));
    const logFile = join(directory, "log");
    const script = "console.log('out'); console.error('err'); process.exitCode = 4";
    const started = await startInBackground([process.execPath, "-e", script], { logFile, detached: true });
    expect(await started.ended).toEqual({ code: 4, signal: undefined });
    expect(readFileSync(logFile, "utf8").split("\n").sort()).toEqual(["", "err", "out"]);
    rmSync(directory, { recursive: true });
  });
  test("rejects when there is no such program", async () => {
    await expect(startInBackground(["/no/such/program"], { detached: true })).rejects.toThrow("could not be started");
  });
});

describe("process identity", () => {
  test("holds while the process runs and no longer", async () => {
    const child = spawn(process.execPath, ["-e", "setInterval(() => undefined, 1000)"], { stdio: "ignore" });
    await once(child, "spawn");
    const identity = identifyProcess(child.pid ?? 0);
    expect(identity).toMatchObject({ pid: child.pid });
    if (identity === undefined) return;
    expect(isSameProcess(identity)).toBe(true);
    expect(isSameProcess({ ...identity, startTicks: identity.startTicks - 1 })).toBe(false);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(isSameProcess(identity)).toBe(false);
    expect(isAlive(identity.pid)).toBe(false);
  });
  test("survives any name of a command, and counts a zombie as ended", () => {
    const fields = (state: string): string =>
      `7 (a) R (b c) ${state} ${Array.from({ length: 18 }, () => "0").join(" ")} 4711 0`;
    expect(parseProcessStat(fields("S"))).toEqual({ pid: 7, startTicks: 4711 });
    expect(parseProcessStat(fields("Z"))).toBeUndefined();
    expect(parseProcessStat("")).toBeUndefined();
  });
});

describe("commandLinesBelow()", () => {
  test("are those of a process and of what it has started", async () => {
    const stdio = ["ignore", "pipe", "ignore"] as const;
    const parent = spawn("sh", ["-c", "sleep 100 & echo started; wait"], { stdio: [...stdio], detached: true });
    await once(parent.stdout ?? parent, "data");
    const pid = parent.pid ?? 0;
    const seen = (): readonly string[] => commandLinesBelow(pid).map((words) => words.join(" "));
    await expect.poll(seen).toEqual(["sh -c sleep 100 & echo started; wait", "sleep 100"]);
    process.kill(-pid);
    await once(parent, "exit");
    expect(seen()).toEqual([""]);
  });
});
