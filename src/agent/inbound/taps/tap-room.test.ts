import { describe, expect, test } from "vitest";
import { TapRoom, maxCopyBytes } from "./tap-room.ts";

describe("TapRoom", () => {
  test("bounds what one copy is behind, and counts what pieces cost beside their bytes", () => {
    const room = new TapRoom();
    expect(room.enter("a")).toBe(true);
    const held = room.take("a", 0, maxCopyBytes / 2) ?? 0;
    expect(held).toBeGreaterThan(maxCopyBytes / 2);
    expect(room.take("a", held, maxCopyBytes / 2)).toBeUndefined();
    let pieces = 0;
    for (let all = held; all < maxCopyBytes; pieces += 1) {
      const one = room.take("a", all, 1);
      if (one === undefined) break;
      all += one;
    }
    expect(pieces).toBeLessThan(maxCopyBytes / 200);
  });

  test("a slow laptop leaves room for another's copies", () => {
    const room = new TapRoom();
    const fill = (id: string): number => {
      let bytes = 0;
      while (room.enter(id)) {
        const held = room.take(id, 0, maxCopyBytes / 2);
        if (held === undefined) break;
        bytes += held;
      }
      return bytes;
    };
    expect(fill("slow")).toBeLessThan(8 * maxCopyBytes);
    expect(room.enter("quick")).toBe(true);
    expect(room.take("quick", 0, 1000)).toBeGreaterThan(1000);
  });

  test("what is left can be taken again", () => {
    const room = new TapRoom();
    for (let round = 0; round < 10_000; round += 1) {
      expect(room.enter("a")).toBe(true);
      const held = room.take("a", 0, 60_000) ?? 0;
      room.give("a", held / 2);
      room.leave("a", held / 2);
    }
  });
});
