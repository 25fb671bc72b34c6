import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { PodAttempts } from "./pod-attempts.ts";

interface Pod {
  readonly name: string;
  readonly uid: string;
}

const podsNamed = (...names: readonly string[]): Pod[] => names.map((name) => ({ name, uid: name }));

describe("PodAttempts", () => {
  test("let a pod that waits for its next attempt hold up no other", async () => {
    const clock = new FakeClock();
    const begun: string[] = [];
    await using attempts = new PodAttempts<Pod, { done: boolean }>({
      what: "trying pod",
      initial: () => ({ done: false }),
      isWanted: ({ state }) => !state.done,
      attempt: ({ pod, state }) => {
        begun.push(pod.name);
        if (pod.name.startsWith("bad")) return Promise.reject(new AppError("refused", "no"));
        state.done = true;
        return Promise.resolve();
      },
      firstRetryMs: 1000,
      restMs: 0,
      clock,
      log: silentLogger,
      onChange: () => undefined,
    });
    const bad = Array.from({ length: 8 }, (_, index) => `bad${index}`);
    attempts.setPods(podsNamed(...bad, "good"));
    await clock.advance(0);
    expect(begun).toEqual([...bad, "good"]);
    await clock.advance(999);
    expect(begun).toHaveLength(9);
    await clock.advance(1);
    expect(begun.slice(9)).toEqual(bad);
  });

  // A new manager had to wait for up to 5 s where the one before had gone away for long.
  test("do not wait the pause out when somebody knows better", async () => {
    const clock = new FakeClock();
    const begun: number[] = [];
    let works = false;
    await using attempts = new PodAttempts<Pod, { done: boolean }>({
      what: "trying pod",
      initial: () => ({ done: false }),
      isWanted: ({ state }) => !state.done,
      attempt: ({ state }) => {
        begun.push(clock.now());
        if (!works) return Promise.reject(new AppError("refused", "no"));
        state.done = true;
        return Promise.resolve();
      },
      firstRetryMs: 5000,
      restMs: 0,
      clock,
      log: silentLogger,
      onChange: () => undefined,
    });
    attempts.setPods(podsNamed("a"));
    await clock.advance(1000);
    works = true;
    for (const entry of attempts.entries) attempts.hasten(entry);
    await clock.advance(0);
    expect(begun).toEqual([0, 1000]);
    expect(clock.pending).toBe(0);
  });
});
