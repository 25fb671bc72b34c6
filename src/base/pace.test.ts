import { expect, test } from "vitest";
import { FakeClock } from "./clock.fake.ts";
import { Pace } from "./pace.ts";

test("what is rare is told at once, what is frequent once in a while, and what came last is never left out", async () => {
  const clock = new FakeClock();
  const told: number[] = [];
  const pace = new Pace(clock, 500, () => told.push(clock.now()));
  pace.due();
  expect(told).toEqual([0]);
  for (let number = 0; number < 90; number += 1) {
    pace.due();
    await clock.advance(10);
  }
  await clock.advance(2000);
  expect(told).toEqual([0, 500, 1000]);
  pace.due();
  expect(told).toEqual([0, 500, 1000, 2900]);
  pace.due();
  pace[Symbol.dispose]();
  await clock.advance(2000);
  expect(told).toHaveLength(4);
});
