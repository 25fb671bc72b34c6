import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { Heartbeat } from "./heartbeat.ts";

describe("a heart-beat's round trip", () => {
  test("is the median of the last ones, so that one which waited behind bulk says nothing", async () => {
    const clock = new FakeClock();
    let ping: Uint8Array | undefined;
    const heartbeat = new Heartbeat({
      clock,
      sendPing: (payload) => (ping = payload),
      onSilence: () => expect.unreachable(),
    });
    expect(heartbeat.roundTripMs).toBeUndefined();
    const answerAfter = async (ms: number): Promise<void> => {
      while (ping === undefined) await clock.advance(1);
      const payload = ping;
      ping = undefined;
      await clock.advance(ms);
      heartbeat.heard();
      heartbeat.pong(payload);
    };
    await answerAfter(7);
    expect([heartbeat.roundTripMs, heartbeat.silentMs]).toEqual([7, 0]);
    for (const ms of [9, 1500, 8]) await answerAfter(ms);
    expect(heartbeat.roundTripMs).toBe(9);
    for (let beat = 0; beat < 20; beat += 1) await answerAfter(3);
    expect(heartbeat.roundTripMs).toBe(3);
    heartbeat.stop();
  });
});
