import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fragmentsOf, udpPacket } from "./packet.fake.ts";
import { PacketView } from "./packet-view.ts";
import { Reassembly } from "./reassembly.ts";

const families = {
  v4: { source: "246.246.0.1", sourcePort: 40_000, destination: "10.96.0.10", destinationPort: 53 },
  v6: { source: "fd00:246::1", sourcePort: 40_000, destination: "fd00:96::a", destinationPort: 53 },
} as const;

function load(bytes: Uint8Array): PacketView {
  const view = new PacketView();
  expect(view.load(bytes)).toBeUndefined();
  return view;
}

describe.each(["v4", "v6"] as const)("Reassembly of %s", (family) => {
  const payload = Uint8Array.from({ length: 5000 }, (_, index) => index % 251);
  const packet = udpPacket(families[family], payload);

  test("gives the datagram back, whatever the MTU", () => {
    fc.assert(
      fc.property(fc.integer({ min: 100, max: 6000 }), (mtu) => {
        const reassembly = new Reassembly();
        const parts = fragmentsOf(packet, mtu, 77);
        const results = parts.map((part) => reassembly.add(load(part), 0));
        expect(results.slice(0, -1).every((result) => result === undefined)).toBe(true);
        const whole = load(results.at(-1) ?? new Uint8Array(0));
        expect(Buffer.compare(whole.bytes.subarray(whole.payloadOffset, whole.end), payload)).toBe(0);
        expect(reassembly.size).toBe(0);
      }),
    );
  });

  test("keeps datagrams apart and gives up those with gaps, doubles and age", () => {
    const reassembly = new Reassembly();
    const [first, second, third, ...rest] = fragmentsOf(packet, 1500, 1).map((part) => part.slice());
    const other = fragmentsOf(packet, 1500, 2);
    for (const part of other.slice(0, -1)) expect(reassembly.add(load(part), 0)).toBeUndefined();
    reassembly.add(load(first!), 0);
    expect(reassembly.size).toBe(2);
    reassembly.add(load(third!), 0);
    expect(reassembly.size).toBe(1);
    expect(reassembly.add(load(second!), 0)).toBeUndefined();
    for (const part of rest) expect(reassembly.add(load(part), 0)).toBeUndefined();
    expect(reassembly.add(load(other.at(-1)!), 4999)).toBeDefined();
    reassembly.add(load(first!), 5000);
    reassembly.add(load(other[0]!), 10_000);
    expect(reassembly.size).toBe(1);
  });

  test("holds no more than 64 datagrams", () => {
    const reassembly = new Reassembly();
    for (let id = 0; id < 1000; id++) reassembly.add(load(fragmentsOf(packet, 1500, id)[0]!), 0);
    expect(reassembly.size).toBe(64);
  });
});
