import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { childrenOf, identify, isAlive, killAll, listPids, namespaceOf, parseStat, processesIn } from "./processes.ts";

describe("parseStat()", () => {
  test("reads a name that holds blanks and brackets", () => {
    const rest = `S 7 ${"0 ".repeat(15)}3 0 4242 0`;
    const expected = { pid: 12, parent: 7, state: "S", threads: 3, startTicks: 4242 };
    expect(parseStat(`12 (a (b) c) ${rest}`)).toEqual(expected);
  });
  test("refuses what is not a stat line", () => {
    expect(parseStat("")).toBeUndefined();
    expect(parseStat("12 (sh) S")).toBeUndefined();
  });
});

describe("a process's identity", () => {
  test("holds while it runs and no longer when it has ended", async () => {
    const child = spawn("sleep", ["60"]);
    await once(child, "spawn");
    const identity = identify(child.pid ?? 0);
    expect(identity && isAlive(identity)).toBe(true);
    expect(childrenOf(process.pid)).toContain(child.pid);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(identity && isAlive(identity)).toBe(false);
  });
  test("is not that of another start with the same number", () => {
    const own = identify(process.pid);
    expect(own && isAlive({ ...own, startTicks: own.startTicks + 1 })).toBe(false);
  });
});

test("processesIn() finds nothing for a namespace that nobody is in, and never this process", () => {
  expect(processesIn(["net:[1]"])).toEqual([]);
  expect(processesIn([namespaceOf(process.pid, "net") ?? ""])).not.toContain(process.pid);
});

test("killAll() ends what is found until nothing is found", async () => {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const ended = once(child, "exit");
  await expect(killAll(() => listPids().filter((pid) => pid === child.pid), 5_000)).resolves.toBe(1);
  await ended;
});
