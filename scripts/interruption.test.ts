// `npm run demo` was ended by Ctrl-C as any program is, and left the whole cluster running.
import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { Interruption } from "./interruption.ts";

test("the first signal is kept for the next step, another of its kind is not", () => {
  const source = new EventEmitter();
  const interruption = new Interruption(source);
  interruption.check();
  expect(interruption.came).toBe(false);
  source.emit("SIGINT");
  expect(interruption.came).toBe(true);
  expect(() => interruption.check()).toThrow(expect.objectContaining({ code: "cancelled" }));
  expect(source.listenerCount("SIGINT")).toBe(0);
});

test("a terminal that closes says so more than once, and ends nothing at once", () => {
  const source = new EventEmitter();
  const interruption = new Interruption(source);
  source.emit("SIGHUP");
  expect([interruption.came, source.listenerCount("SIGHUP")]).toEqual([true, 1]);
});
