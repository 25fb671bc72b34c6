// The take-over of a numeric port in a pod's network namespace, with the kernel's own nft (DESIGN 14).
//
//   callers 198.51.100.1 ───── veth ───── 198.51.100.2 pod: application :8080, agent :9900
//
// Stories: a rule that matches more than the first SYN resets every older connection; deleting the table resets those
// that were opened through it; an agent that is killed must not leave a rule behind.
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { callerCalls } from "./agent-caller.ts";
import type { podCalls } from "./agent-pod.ts";
import { callProcess } from "./process-calls.ts";
import type { Remote } from "./process-calls.ts";

const ip = (...args: string[]): void => void execFileSync("ip", args);
const podNet = `agent-pod-${process.pid}`;
const callerNet = `agent-caller-${process.pid}`;
const children: ChildProcess[] = [];

let pod: Remote<typeof podCalls>;
let caller: Remote<typeof callerCalls>;

function start(namespace: string, script: string): ChildProcess {
  const args = [`--net=/run/netns/${namespace}`, process.execPath, join(import.meta.dirname, script)];
  const child = spawn("nsenter", args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  children.push(child);
  return child;
}
const rulesetOfPod = (): string =>
  execFileSync("nsenter", [`--net=/run/netns/${podNet}`, "nft", "list", "ruleset"], { encoding: "utf8" });
const soon = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

beforeEach(async () => {
  ip("netns", "add", podNet);
  ip("netns", "add", callerNet);
  ip("-n", podNet, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", callerNet);
  for (const [namespace, address] of [
    [podNet, "198.51.100.2/30"],
    [callerNet, "198.51.100.1/30"],
  ] as const) {
    ip("-n", namespace, "link", "set", "lo", "up");
    ip("-n", namespace, "addr", "add", address, "dev", "eth0");
    ip("-n", namespace, "link", "set", "eth0", "up");
  }
  ip("-n", podNet, "route", "add", "default", "via", "198.51.100.1");
  [pod, caller] = await Promise.all([
    callProcess<typeof podCalls>(start(podNet, "agent-pod.ts")),
    callProcess<typeof callerCalls>(start(callerNet, "agent-caller.ts")),
  ]);
  await pod.start();
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    const ended = new Promise((resolve) => child.once("exit", resolve));
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await ended;
    }
  }
  for (const namespace of [podNet, callerNet]) ip("netns", "del", namespace);
});

test("attach and detach lose nothing: connections from before, from during, and new ones", async () => {
  expect(await pod.ruleset()).toBe("");
  expect(await caller.keep(10)).toEqual(new Array(10).fill("application"));
  await caller.startNew(4);
  await soon(200);
  const before = await caller.take();
  expect(before).toMatchObject({ laptop: 0, errors: [] });
  expect(before.application).toBeGreaterThan(100);

  for (let cycle = 0; cycle < 5; cycle += 1) {
    expect(await pod.attach()).toBe("active");
    expect(await pod.ruleset()).toContain("redirect to :9900");
    expect(await caller.keep(5)).toEqual(new Array(5).fill("laptop"));
    await soon(200);
    const during = await caller.take();
    expect(during.errors).toEqual([]);
    expect(during.laptop).toBeGreaterThan(100); // new ones and those kept since the attach
    expect(during.application).toBeGreaterThan(100); // those older than the attach

    await pod.detach();
    expect(await pod.ruleset()).not.toContain("redirect");
    expect(await pod.ruleset()).toContain("ct state invalid");
    await caller.take();
    await soon(300);
    const after = await caller.take();
    expect(after.errors).toEqual([]);
    expect(after.laptop).toBeGreaterThan(50); // those opened through the redirect go on
    expect(after.application).toBeGreaterThan(100);
  }

  await caller.release();
  await caller.stop();
  for (let tries = 0; tries < 100 && (await pod.ruleset()) !== ""; tries += 1) await soon(50);
  expect(await pod.ruleset()).toBe("");
  expect(await pod.connections()).toBe(0);
  expect((await caller.take()).errors).toEqual([]);
});

test("kill -9 of the agent takes its rule away", async () => {
  await pod.attach();
  expect(rulesetOfPod()).toContain("redirect");
  const child = children[0]!;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
  for (let tries = 0; tries < 50 && rulesetOfPod() !== ""; tries += 1) await soon(20);
  expect(rulesetOfPod()).toBe("");
});
