import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { HeldDatagrams, Unanswered } from "./unanswered.ts";

const texts = (datagrams: readonly Uint8Array[]): readonly string[] =>
  datagrams.map((one) => Buffer.from(one).toString());

describe("what nobody has answered", () => {
  test("is given once, oldest first, and without what is too old to be meant", async () => {
    const clock = new FakeClock();
    const all = new HeldDatagrams();
    const held = new Unanswered(clock, all);
    held.add(Buffer.from("old"));
    await clock.advance(3000);
    held.add(Buffer.from("a"));
    held.add(Buffer.from("b"));
    expect(texts(held.take(2000))).toEqual(["a", "b"]);
    expect([all.bytes, held.take()]).toEqual([0, []]);
  });

  test("keeps the youngest 64 KiB of a flow", () => {
    const all = new HeldDatagrams();
    const held = new Unanswered(new FakeClock(), all);
    for (let number = 0; number < 10; number += 1) held.add(Buffer.alloc(8192, String(number)));
    expect(all.bytes).toBeLessThanOrEqual(64 * 1024);
    expect(texts(held.take()).map(([first]) => first)).toEqual(["3", "4", "5", "6", "7", "8", "9"]);
  });

  test("is bounded for all flows of a port, and gives back what ends", () => {
    const clock = new FakeClock();
    const all = new HeldDatagrams();
    const flows = Array.from({ length: 100 }, () => new Unanswered(clock, all));
    for (const flow of flows) flow.add(Buffer.alloc(60_000));
    expect(all.bytes).toBeLessThanOrEqual(4 * 1024 * 1024);
    expect(all.bytes).toBeGreaterThan(4_000_000);
    for (const flow of flows) flow.forget();
    expect([all.bytes, all.all.size]).toEqual([0, 0]);
  });

  // Once they had filled the port's room, callers that nobody ever answers left none for a new one's first datagram.
  test("of callers that are never answered makes room for others; empty datagrams are counted as well", () => {
    const clock = new FakeClock();
    const all = new HeldDatagrams();
    const silent = Array.from({ length: 100 }, () => new Unanswered(clock, all));
    for (const flow of silent) flow.add(Buffer.alloc(60_000));
    const fresh = new Unanswered(clock, all);
    fresh.add(Buffer.from("first"));
    expect(texts(fresh.take())).toEqual(["first"]);
    for (let number = 0; number < 1000; number += 1) fresh.add(Buffer.alloc(0));
    expect(fresh.take().length).toBe(256);
  });
});
