// How many requests of one preview are answered at once, and that nothing is left of them.
import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { OpenVisits } from "./open-visits.ts";

test("a preview has 512 at once, another one its own, and what has closed makes room", () => {
  const open = new OpenVisits(new FakeClock(), silentLogger);
  const visit = () => ({ may: () => Promise.resolve(true), cut: () => undefined });
  const closing = Array.from({ length: 512 }, () => new EventEmitter());
  for (const one of closing) expect(open.hold("a", visit(), one)).toBe(true);
  expect(open.hold("a", visit(), new EventEmitter())).toBe(false);
  expect(open.hold("b", visit(), new EventEmitter())).toBe(true);
  closing[0]?.emit("close");
  expect(open.hold("a", visit(), new EventEmitter())).toBe(true);
});

test("a check that fails cuts nobody, and the next one does", async () => {
  const clock = new FakeClock();
  const open = new OpenVisits(clock, silentLogger);
  const answers = [() => Promise.reject(new Error("the database is away")), () => Promise.resolve(false)];
  const { promise, resolve } = Promise.withResolvers<void>();
  const closing = new EventEmitter();
  let asked = 0;
  const visit = { may: () => answers[asked++]?.() ?? Promise.resolve(true), cut: resolve };
  open.hold("a", visit, closing);
  await clock.advance(10_000);
  await clock.advance(10_000);
  await promise;
  closing.emit("close");
  await clock.advance(60_000);
  expect(asked).toBe(2);
});
