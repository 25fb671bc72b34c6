// The take-over of a numeric port in a pod's network namespace, with the kernel's own nft (DESIGN 14).
//
//   callers 198.51.100.1 ───── veth ───── 198.51.100.2 pod: application :8080, agent :9900
//
// Stories: a rule that matches more than the first SYN resets every older connection; deleting the table resets those
// that were opened through it; an agent that is killed must not leave a rule behind.
import type { ChildProcess } from "node:child_process";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { callerCalls } from "./agent-caller.ts";
import type { podCalls } from "./agent-pod.ts";
import { kill, PodNetwork } from "./pod-network.ts";
import { callProcess } from "./process-calls.ts";
import type { Remote } from "./process-calls.ts";

const network = new PodNetwork("redirect");
/** For what another process does in its own time; only a failure takes so long. */
const eventually = { interval: 20, timeout: 30_000 };
const newAskers = 4;
/** Questions to each connection in each phase. */
const rounds = 8;

let podProcess: ChildProcess;
let pod: Remote<typeof podCalls>;
let caller: Remote<typeof callerCalls>;

beforeEach(async () => {
  network.open();
  podProcess = network.start("pod", "agent-pod.ts");
  [pod, caller] = await Promise.all([
    callProcess<typeof podCalls>(podProcess),
    callProcess<typeof callerCalls>(network.start("callers", "agent-caller.ts")),
  ]);
  await pod.start();
});
afterEach(() => network.close());

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
  expect(network.ruleset()).toContain("redirect");
  await kill(podProcess);
  await expect.poll(() => network.ruleset(), eventually).toBe("");
});
