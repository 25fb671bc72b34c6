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
/** For what another process does in its own time; only a failure takes so long. */
const eventually = { interval: 20, timeout: 30_000 };
const children: ChildProcess[] = [];
const newAskers = 4;
/** Questions to each connection in each phase. */
const rounds = 8;

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
  await caller.startNew(newAskers);
  const before = await caller.rounds(rounds);
  expect(before).toMatchObject({ laptop: 0, errors: [] });
  expect(before.application).toBeGreaterThanOrEqual((10 + newAskers) * rounds);

  for (let cycle = 1; cycle <= 5; cycle += 1) {
    expect(await pod.attach()).toBe("active");
    expect(await pod.ruleset()).toContain("redirect to :9900");
    expect(await caller.keep(5)).toEqual(new Array(5).fill("laptop"));
    const during = await caller.rounds(rounds);
    expect(during.errors).toEqual([]);
    // New ones, but for one of each asker that was under way, and those kept since an attach.
    expect(during.laptop).toBeGreaterThanOrEqual(newAskers * (rounds - 1) + 5 * cycle * rounds);
    expect(during.application).toBeGreaterThanOrEqual(10 * rounds); // those older than the attach

    await pod.detach();
    await expect.poll(() => pod.ruleset(), eventually).not.toContain("redirect");
    expect(await pod.ruleset()).toContain("ct state invalid");
    const after = await caller.rounds(rounds);
    expect(after.errors).toEqual([]);
    expect(after.laptop).toBeGreaterThanOrEqual(5 * cycle * rounds); // those opened through the redirect go on
    expect(after.application).toBeGreaterThanOrEqual(10 * rounds + newAskers * (rounds - 1));
  }

  await caller.release();
  await caller.stop();
  await expect.poll(() => pod.ruleset(), eventually).toBe("");
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
  await expect.poll(rulesetOfPod, eventually).toBe("");
});
