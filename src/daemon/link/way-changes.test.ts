// The traps: a laptop wakes up or changes its network, and a connection that is dead looks alive for seconds; a machine
// with many containers has news of its network all the time.
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { WayChanges } from "./way-changes.ts";

function setUp() {
  const clock = new FakeClock();
  const toldAtMs: number[] = [];
  const onChange = (): void => void toldAtMs.push(clock.now());
  const changes = new WayChanges({ isOwn: () => true, onChange, clock, log: silentLogger });
  return { clock, changes, toldAtMs };
}

test("a machine that wakes up asks within a second", async () => {
  const { clock, changes, toldAtMs } = setUp();
  using _changes = changes;
  await clock.advance(10_500);
  clock.suspend(8 * 3_600_000);
  await clock.advance(1000);
  expect(toldAtMs).toEqual([11_000]);
});

test("a storm of news is told at its beginning, four times a second, and once after its end", async () => {
  const { clock, changes, toldAtMs } = setUp();
  for (let news = 0; news < 1000; news += 1) {
    changes.tell();
    await clock.advance(1);
  }
  await clock.advance(5000);
  expect(toldAtMs).toEqual([0, 250, 500, 750, 1000]);
  changes[Symbol.dispose]();
  expect(clock.pending).toBe(0);
});
