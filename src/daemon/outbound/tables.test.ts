import { describe, expect, test } from "vitest";
import { tcpPacket } from "#packet/packet.fake.ts";
import { PacketView } from "#packet/packet-view.ts";
import { flowKeyOf, FlowTable, type TableEntry } from "./flow-table.ts";
import { PortPool } from "./port-pool.ts";

interface Entry extends TableEntry<Entry> {
  readonly id: number;
}
const view = new PacketView();
function loaded(id: number, family: "v4" | "v6" = "v4"): PacketView {
  const ends =
    family === "v4" ? { source: "10.0.0.1", destination: "10.1.0.1" } : { source: "fd00::1", destination: "fd00::2" };
  const packet = tcpPacket({
    ...ends,
    sourcePort: 1 + (id % 60_000),
    destinationPort: 1 + Math.floor(id / 60_000),
    flags: 2,
  });
  expect(view.load(packet)).toBeUndefined();
  return view;
}

describe("FlowTable", () => {
  test("finds each of many entries by packet and by key, and none that was removed", () => {
    const table = new FlowTable<Entry>();
    const ids = Array.from({ length: 10_000 }, (_, index) => index * 7);
    const entries = ids.map((id): Entry => ({ id, key: flowKeyOf(loaded(id)), nextInBucket: undefined }));
    for (const entry of entries) table.insert(entry);
    expect(ids.every((id, index) => table.find(loaded(id)) === entries[index])).toBe(true);
    expect(entries.every((entry) => table.findKey(entry.key) === entry)).toBe(true);
    expect(table.find(loaded(1))).toBeUndefined();
    expect(table.find(loaded(0, "v6"))).toBeUndefined();
    for (const entry of entries.filter((_, index) => index % 2 === 0)) expect(table.remove(entry)).toBe(true);
    expect(table.remove(entries[0]!)).toBe(false);
    expect(entries.every((entry, index) => (table.findKey(entry.key) === entry) === (index % 2 === 1))).toBe(true);
    expect(table.size).toBe(5000);
  });
});

describe("PortPool", () => {
  test("gives each port once, and one that came back after all others", () => {
    const pool = new PortPool();
    const first = pool.take()!;
    pool.give(first);
    const taken = new Set<number>();
    for (let port = pool.take(); port !== undefined; port = pool.take()) taken.add(port);
    expect(taken.size).toBe(65_536 - 1024);
    expect([...taken].at(-1)).toBe(first);
    expect(Math.min(...taken)).toBe(1024);
    pool.give(2000);
    expect([pool.take(), pool.take()]).toEqual([2000, undefined]);
  });
});
