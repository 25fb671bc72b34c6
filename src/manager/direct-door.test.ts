import { EventEmitter } from "node:events";
import type { TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { DirectAdmissions } from "./direct-door.ts";

class FakeSocket extends EventEmitter {
  destroyed = false;
  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }
}
const socket = (): FakeSocket & TLSSocket => new FakeSocket() as unknown as FakeSocket & TLSSocket;

describe("an admission to the direct port", () => {
  test("holds for an hour, and its connections no longer", async () => {
    const clock = new FakeClock();
    using admissions = new DirectAdmissions(clock);
    admissions.admit("session", "key");
    const carrying = socket();
    expect(admissions.take(carrying, "key")).toBe("session");
    await clock.advance(59 * 60_000);
    expect([admissions.isAdmitted("key"), carrying.destroyed]).toEqual([true, false]);
    await clock.advance(60_000);
    expect([admissions.isAdmitted("key"), carrying.destroyed]).toEqual([false, true]);
    expect(admissions.take(socket(), "key")).toBeUndefined();
    expect(clock.pending).toBe(0);
  });
  test("is another after the next proof, and none when the session has ended", async () => {
    const clock = new FakeClock();
    using admissions = new DirectAdmissions(clock);
    admissions.admit("session", "first");
    const old = socket();
    admissions.take(old, "first");
    await clock.advance(50 * 60_000);
    admissions.admit("session", "second");
    expect([admissions.isAdmitted("first"), old.destroyed]).toEqual([false, true]);
    await clock.advance(50 * 60_000);
    expect(admissions.isAdmitted("second")).toBe(true);
    admissions.end("session");
    expect(admissions.isAdmitted("second")).toBe(false);
  });
  test("carries a few connections at once: one more ends the oldest", () => {
    using admissions = new DirectAdmissions(new FakeClock());
    admissions.admit("session", "key");
    const sockets = Array.from({ length: 5 }, socket);
    for (const one of sockets) admissions.take(one, "key");
    expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, false, false, false, false]);
  });
});
