import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { WorkloadAccess, WorkloadPod } from "#daemon/intercepts/workload-access.ts";
import { IngestedPods } from "./ingested-pods.ts";

const never = new AbortController().signal;
const pod = (name: string, more: Partial<WorkloadPod> = {}): WorkloadPod => ({
  name,
  uid: name,
  ready: true,
  agentRunning: false,
  ...more,
});

function open(kind: "Deployment" | "CronJob" = "Deployment") {
  const clock = new FakeClock();
  const told = Promise.withResolvers<(pods: readonly WorkloadPod[]) => void>();
  const access = {
    watchPods: (_: unknown, onPods: (pods: readonly WorkloadPod[]) => void, signal: AbortSignal) => {
      told.resolve(onPods);
      return new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    },
  } as unknown as WorkloadAccess;
  const workload = { kind, name: "hello", namespace: "shop" };
  const pods = new IngestedPods({ access, workload, clock, log: silentLogger });
  return { clock, pods, access, tell: told.promise };
}

describe("the pod that is read", () => {
  test.each([
    ["one that is ready", [pod("a", { ready: false }), pod("b")], "b"],
    ["one with an agent to read with", [pod("a"), pod("b", { agentRunning: true })], "b"],
    ["one that lives, when none is ready", [pod("a", { ended: true, ready: false }), pod("b", { ready: false })], "b"],
    ["none that has ended", [pod("a", { ended: true })], undefined],
  ])("is %s", async (_, all, name) => {
    const { pods, tell } = open();
    (await tell)(all);
    expect(pods.somePod?.name).toBe(name);
    await pods[Symbol.asyncDispose]();
  });
  test("is waited for a moment, and then taken as it is: one that never comes up is what people look into", async () => {
    const { clock, pods, tell } = open();
    const first = pods.first(never);
    (await tell)([pod("a", { ready: false })]);
    await clock.advance(0);
    await clock.advance(5000);
    expect((await first).name).toBe("a");
    await pods[Symbol.asyncDispose]();
  });
  test("is missed with what to do about it", async () => {
    const { clock, pods, tell } = open("CronJob");
    const first = pods.first(never);
    const failure = first.catch((error: unknown) => error);
    (await tell)([]);
    await clock.advance(0);
    await clock.advance(5000);
    expect(await failure).toMatchObject({
      message: "cronjob hello has no pod that runs",
      hint: "ingest it while one of its jobs runs",
    });
    await pods[Symbol.asyncDispose]();
  });
  test("is not waited for where pods may not be listed", async () => {
    const access = { watchPods: () => Promise.reject(new AppError("forbidden", "you may not list pods")) };
    const workload = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
    const options = {
      access: access as unknown as WorkloadAccess,
      workload,
      clock: new FakeClock(),
      log: silentLogger,
    };
    await using pods = new IngestedPods(options);
    await expect(pods.first(never)).rejects.toThrow("you may not list pods");
  });
});

// An agent that nobody asked ended after ten minutes, and another one came, until the third.
test("agents to read with are asked something now and then, so that they stay", async () => {
  const { clock, pods, access, tell } = open();
  const asked: string[] = [];
  access.openIntroduction = (_namespace, podName) => {
    asked.push(podName);
    return Promise.reject(new AppError("refused", "no"));
  };
  (await tell)([pod("a", { agentRunning: true }), pod("b")]);
  pods.attachAgents();
  await clock.advance(11 * 60_000);
  expect(asked).toEqual(["a", "a"]);
  await pods[Symbol.asyncDispose]();
  expect(clock.pending).toBe(0);
});
