import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { Clock } from "#base/clock.ts";
import { TapPace } from "./tap-pace.ts";

function setUp() {
  const fake = new FakeClock();
  let stalledMs = 0;
  const clock: Clock = {
    now: () => fake.now() + stalledMs,
    wallMs: () => fake.wallMs(),
    uptimeMs: () => fake.uptimeMs() + stalledMs,
    after: (ms, callback) => fake.after(ms, callback),
    every: (ms, callback) => fake.every(ms, callback),
    sleep: (ms, signal) => fake.sleep(ms, signal),
  };
  const listeners: (() => void)[] = [];
  const served = { hasTaps: false, onChange: (listener: () => void) => void listeners.push(listener) };
  const pace = new TapPace(served, clock);
  const change = (hasTaps: boolean): void => {
    served.hasTaps = hasTaps;
    for (const listener of listeners) listener();
  };
  /** Time goes by, and no timer comes. */
  const stall = (ms: number): void => void (stalledMs += ms);
  return { fake, pace, change, stall };
}

describe("TapPace", () => {
  test("is busy as soon as a timer should have come, and for a while after it has", async () => {
    const { fake, pace, change, stall } = setUp();
    change(true);
    await fake.advance(1000);
    expect(pace.isBusy).toBe(false);
    stall(500);
    expect(pace.isBusy).toBe(true);
    await fake.advance(100);
    expect(pace.isBusy).toBe(true);
    await fake.advance(3000);
    expect(pace.isBusy).toBe(false);
  });

  test("runs no timer without wiretaps", async () => {
    const { pace, change, stall } = setUp();
    stall(1000);
    expect(pace.isBusy).toBe(false);
    change(true);
    change(false);
    stall(1000);
    expect(pace.isBusy).toBe(false);
  });
});
