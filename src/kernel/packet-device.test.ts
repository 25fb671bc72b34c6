import { describe, expect, test } from "vitest";
import { FakePacketDevice } from "./packet-device.fake.ts";

describe("FakePacketDevice.pair()", () => {
  test("delivers in order, later, and copies", async () => {
    const [left, right] = FakePacketDevice.pair(1500);
    const seen: string[] = [];
    right.onPacket((packet) => void seen.push(Buffer.from(packet).toString()));
    const packet = Buffer.from("one");
    expect(left.write(packet)).toBe(true);
    packet.write("two");
    expect(left.write(packet)).toBe(true);
    expect(seen).toEqual([]);
    await Promise.resolve();
    expect(seen).toEqual(["one", "two"]);
  });
  test("drops what is too long, and what does not fit its queue", () => {
    const [left] = FakePacketDevice.pair(1500);
    expect(left.write(new Uint8Array(1501))).toBe(false);
    for (let count = 0; count < 500; count++) expect(left.write(new Uint8Array(1))).toBe(true);
    expect(left.write(new Uint8Array(1))).toBe(false);
  });
  test("a lost device says so once, a closed one never", () => {
    const [left, right] = FakePacketDevice.pair();
    const reasons: string[] = [];
    left.onLost((error) => void reasons.push(error.code));
    right.onLost((error) => void reasons.push(error.code));
    left.lose();
    left.lose();
    right.close();
    right.lose();
    expect(reasons).toEqual(["tun_unavailable"]);
    expect(left.write(new Uint8Array(1))).toBe(false);
  });
});
