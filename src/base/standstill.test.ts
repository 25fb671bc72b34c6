// The trap: a laptop wakes up, its timers have stood still, and connections that died meanwhile look alive.
import { expect, test } from "vitest";
import { FakeClock } from "./clock.fake.ts";
import { watchStandstills } from "./standstill.ts";

test("tells of each standstill within a second, and of nothing else", async () => {
  const clock = new FakeClock();
  const told: number[] = [];
  const watch = watchStandstills(clock, (ms) => told.push(ms));
  await clock.advance(60_000);
  expect(told).toEqual([]);
  clock.suspend(3_600_000);
  await clock.advance(1000);
  expect(told).toEqual([3_600_000]);
  clock.suspend(500); // as a busy machine is late
  await clock.advance(60_000);
  expect(told).toHaveLength(1);
  watch[Symbol.dispose]();
  expect(clock.pending).toBe(0);
});

// A step of NTP's moves the wall clock, which nobody asks here.
test("does not take a clock that was set for a standstill", async () => {
  const clock = new FakeClock();
  let wallMs = 0;
  const told: number[] = [];
  using _watch = watchStandstills(Object.assign(clock, { wallMs: () => wallMs }), (ms) => told.push(ms));
  wallMs = 86_400_000;
  await clock.advance(5000);
  expect(told).toEqual([]);
});
