import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { createLogger } from "#base/log.ts";
import type { CallerPathState, InterceptInfo, InterceptState } from "#wire/manager-api.ts";
import type { WorkloadNews } from "./workload-access.ts";
import { WorkloadEvents } from "./workload-events.ts";

const log = createLogger("silent", () => undefined);

function infoOf(state: InterceptState, name = "hello", message = ""): InterceptInfo {
  return {
    id: `s:${name}`,
    spec: {
      name,
      workload: { kind: "Deployment", name, namespace: "shop" },
      containerName: "app",
      ports: [{ containerPort: 8080, protocol: "tcp", servicePort: 80, targetHost: "127.0.0.1", targetPort: 8000 }],
    },
    client: "ann@laptop",
    sessionId: "s",
    state,
    message,
    pods: [],
    refusedByLaptop: 0,
    createdAtMs: 0,
  };
}

function startEvents(
  record: (news: WorkloadNews, signal: AbortSignal) => Promise<unknown>,
  clock = new FakeClock(),
): WorkloadEvents {
  return new WorkloadEvents({ record, clock, log });
}

describe("WorkloadEvents", () => {
  test("tells of a wiretap what it is: the application answers all the while", async () => {
    const told: string[] = [];
    const events = startEvents(async ({ reason, message }) => void told.push(`${reason}: ${message}`));
    const tap = (state: InterceptState): InterceptInfo => {
      const info = infoOf(state);
      return { ...info, spec: { ...info.spec, kind: "wiretap" } };
    };
    events.update([tap("active")]);
    events.update([tap("suspended")]);
    await events[Symbol.asyncDispose]();
    expect(told).toEqual([
      "WiretapActive: wiretap hello of ann@laptop is active: that laptop gets copies of what comes to port 80",
      "WiretapSuspended: wiretap hello of ann@laptop is suspended: nothing is copied until the laptop is back",
      "WiretapRemoved: wiretap hello of ann@laptop has ended: nothing is copied any more",
    ]);
  });

  test("tells each change of state once, in order, and the end", async () => {
    const told: string[] = [];
    const events = startEvents(async ({ reason, message }) => void told.push(`${reason}: ${message}`));
    events.update([infoOf("waiting")]);
    events.update([infoOf("active")]);
    events.update([infoOf("active")]);
    events.update([infoOf("suspended")]);
    events.update([infoOf("active")]);
    events.update([infoOf("error", "hello", "port 8080 is taken")]);
    events.update([]);
    await events[Symbol.asyncDispose]();
    expect(told).toEqual([
      "InterceptActive: intercept hello of ann@laptop is active: port 80 is answered from that laptop",
      "InterceptSuspended: intercept hello of ann@laptop is suspended: the application answers until the laptop is back",
      "InterceptActive: intercept hello of ann@laptop is active again: port 80 is answered from that laptop",
      "InterceptError: intercept hello of ann@laptop failed: port 8080 is taken",
      "InterceptRemoved: intercept hello of ann@laptop has ended: the application answers all callers again",
    ]);
  });

  // It was found long after the first canary, and only `status` knew.
  test("tells that callers do not reach the agents, whenever that turns out, and that they do again", async () => {
    const told: string[] = [];
    const events = startEvents(async ({ reason, type }) => void told.push(`${type} ${reason}`));
    const path = (verdict: CallerPathState["verdict"]): InterceptInfo => ({
      ...infoOf("active"),
      callerPath: { verdict, ageMs: 0, through: [], reason: "a mesh takes the port before the agent" },
    });
    events.update([infoOf("active")]);
    events.update([path("verified")]);
    for (const verdict of ["by-passed", "by-passed", "unknown", "verified"] as const) events.update([path(verdict)]);
    await events[Symbol.asyncDispose]();
    expect(told).toEqual([
      "Normal InterceptActive",
      "Warning InterceptByPassed",
      "Normal InterceptReached",
      "Normal InterceptRemoved",
    ]);
  });

  test("tells the end of what is left when it is disposed", async () => {
    const told: string[] = [];
    const events = startEvents(async ({ reason }) => void told.push(reason));
    events.update([infoOf("active")]);
    await events[Symbol.asyncDispose]();
    expect(told).toEqual(["InterceptActive", "InterceptRemoved"]);
  });

  test("asks no more where events are forbidden, and goes on elsewhere", async () => {
    const asked: string[] = [];
    const events = startEvents(async ({ workload }) => {
      asked.push(workload.name);
      throw new AppError("forbidden", "no");
    });
    events.update([infoOf("active")]);
    await events[Symbol.asyncDispose]();
    expect(asked).toHaveLength(1);
  });

  // Story: the loss of a laptop's network was never told, because the laptop itself writes the events.
  test("tells what happened while the cluster was away when it is back, with the times at which it happened", async () => {
    const clock = new FakeClock();
    const told: (readonly [string, number])[] = [];
    let isAway = false;
    const record = ({ reason, atMs }: WorkloadNews): Promise<void> => {
      if (isAway) return Promise.reject(new AppError("cluster_unreachable", "no answer"));
      told.push([reason, atMs]);
      return Promise.resolve();
    };
    const events = startEvents(record, clock);
    events.update([infoOf("active")]);
    await clock.advance(0);
    const lostMs = clock.wallMs();
    isAway = true;
    events.update([infoOf("suspended")]);
    for (let second = 0; second < 15; second += 1) await clock.advance(1000);
    isAway = false;
    const backMs = clock.wallMs();
    events.update([infoOf("active")]);
    await clock.advance(20_000);
    expect(told).toEqual([
      ["InterceptActive", lostMs],
      ["InterceptSuspended", lostMs],
      ["InterceptActive", backMs],
    ]);
    await events[Symbol.asyncDispose]();
  });

  test("keeps the latest when the cluster takes none", async () => {
    const told: string[] = [];
    const first = Promise.withResolvers<void>();
    const events = startEvents(async ({ workload }) => {
      await first.promise;
      told.push(workload.name);
    });
    const many = Array.from({ length: 100 }, (_, index) => infoOf("active", `w${index}`));
    events.update(many);
    first.resolve();
    await events[Symbol.asyncDispose]();
    expect(told.length).toBeLessThanOrEqual(65);
    expect(told.at(-1)).toBe("w99");
  });
});
