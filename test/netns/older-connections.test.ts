// Connections older than an intercept (DESIGN 14), in the kernel's own socket table, and what becomes of them.
//
//   callers 198.51.100.1 ───── veth ───── 198.51.100.2 pod: application :8080, agent :9900
//
// Stories: whoever attaches does not see that half of the requests still go to the pod; a drain that goes by silence
// alone cuts the caller that waits for a slow answer.
import { afterEach, beforeEach, expect, test } from "vitest";
import type { callerCalls } from "./agent-caller.ts";
import type { podCalls } from "./agent-pod.ts";
import { PodNetwork } from "./pod-network.ts";
import { callProcess } from "./process-calls.ts";
import type { Remote } from "./process-calls.ts";

const network = new PodNetwork("older");

let pod: Remote<typeof podCalls>;
let caller: Remote<typeof callerCalls>;

const soon = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
/** Only what never comes takes so long. */
const eventuallyMs = 20_000;

/** Asks until the answer is the wanted one; how long that took, in milliseconds. */
async function until<T>(read: () => Promise<T>, wanted: T, withinMs = eventuallyMs): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    const value = await read();
    const passedMs = performance.now() - startMs;
    if (JSON.stringify(value) === JSON.stringify(wanted) || passedMs > withinMs) {
      expect(value).toEqual(wanted);
      return passedMs;
    }
    await soon(50);
  }
}
const times = <T>(count: number, value: T): T[] => new Array<T>(count).fill(value);

beforeEach(async () => {
  network.open();
  caller = await callProcess<typeof callerCalls>(network.start("callers", "agent-caller.ts"));
});
afterEach(() => network.close());

async function startPod(takeover: "redirect" | "name" = "redirect"): Promise<void> {
  pod = await callProcess<typeof podCalls>(network.start("pod", "agent-pod.ts"));
  await pod.start({ takeover });
}

test("keep: older connections are counted, stay, and count down as they end", async () => {
  await startPod();
  await caller.keep(6);
  await caller.hold(4, 1);
  expect(await pod.attach("keep")).toBe("active");
  expect(await pod.older()).toEqual({ connections: 10, callers: 1 });
  expect(await caller.keep(3)).toEqual(times(3, "laptop")); // newer ones do not count
  await soon(7000);
  expect(await pod.older()).toEqual({ connections: 10, callers: 1 });
  expect(await caller.outcomes()).toEqual(times(4, "open"));
  expect(await caller.askHeld(0)).toBe("application");
  await caller.release();
  await until(() => pod.older(), { connections: 4, callers: 1 });
  expect((await caller.take()).errors).toEqual([]);
  await pod.detach();
  expect(await caller.askHeld(1)).toBe("application");
});

test("drain: the idle are closed within 7 s; one in use and one that waits for its answer are not", async () => {
  await startPod();
  await caller.hold(4, 1);
  await caller.hold(4, 20);
  await caller.keep(1);
  await caller.holdAsking();
  expect(await pod.attach("drain")).toBe("active");
  expect(await pod.older()).toEqual({ connections: 10, callers: 1 });
  const tookMs = await until(() => pod.older(), { connections: 2, callers: 1 }, 7000);
  const idle = await caller.outcomes();
  process.stdout.write(`drain: 8 idle connections closed in ${Math.round(tookMs)} ms: ${idle.join(" ")}\n`);
  expect(tookMs).toBeGreaterThan(3500);
  expect(idle).toEqual([...times(8, "ECONNRESET"), "open"]);
  // Answered after 9 s it is idle; the one in use goes on.
  await until(() => caller.outcomes(), [...times(8, "ECONNRESET"), "application"]);
  await until(() => pod.older(), { connections: 1, callers: 1 });
  const used = await caller.rounds(20);
  expect(used.errors).toEqual([]);
  expect(used.application).toBeGreaterThanOrEqual(20);
});

test("reset: all are gone before the intercept is answered", async () => {
  await startPod();
  await caller.hold(9, 1);
  await caller.keep(1);
  expect(await pod.attach("reset")).toBe("active");
  expect(await pod.older()).toEqual({ connections: 0, callers: 0 });
  await until(() => caller.outcomes(), times(9, "ECONNRESET"));
  await until(async () => (await caller.take()).errors.length > 0, true);
  expect(await caller.keep(2)).toEqual(times(2, "laptop"));
});

test("what the agent itself passes in a caller's name is not an older connection of the caller", async () => {
  await startPod();
  await pod.refuse(true);
  await pod.attach("keep");
  await caller.hold(3, 20); // refused by the laptop, passed in the caller's name
  await pod.detach();
  await caller.hold(2, 20);
  await pod.refuse(false);
  await pod.attach("drain");
  // Each once, although the application sees five connections and the agent has three of its own.
  expect(await pod.older()).toEqual({ connections: 5, callers: 1 });
  await until(() => pod.older(), { connections: 0, callers: 0 });
  expect(await caller.outcomes()).toEqual([...times(3, "end"), ...times(2, "ECONNRESET")]);
});

test("name take-over: connections that the agent passes end in order", async () => {
  await startPod("name");
  // The Service leads to the agent; here its port is dialled.
  await caller.dialAgent();
  await caller.hold(5, 20);
  await pod.attach("drain");
  expect(await pod.older()).toEqual({ connections: 5, callers: 1 });
  await until(() => pod.older(), { connections: 0, callers: 0 });
  expect(await caller.outcomes()).toEqual(times(5, "end"));
});
