// Trap 11: a VPN that has the cluster's addresses. Trap 18: a virtual address was malformed ("246.246.0.1313").
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { formatAddress, formatPrefix, parseAddress, parsePrefix, prefixContains, prefixesOverlap } from "./address.ts";
import type { IpAddress, Prefix } from "./address.ts";
import { findFreePrefix, Translation } from "./translation.ts";

const prefix = (text: string): Prefix => {
  const parsed = parsePrefix(text);
  if (parsed === undefined) throw new Error(`${text} is not a prefix`);
  return parsed;
};
const address = (text: string): IpAddress => parseAddress(text) ?? new Uint8Array();
const seen = (found: IpAddress | undefined): string | undefined =>
  found === undefined ? undefined : formatAddress(found);

describe("a translation", () => {
  const translation = new Translation(
    [
      { real: prefix("10.96.0.0/16"), virtual: prefix("240.1.0.0/16") },
      { real: prefix("10.96.7.0/24"), virtual: prefix("240.0.0.0/24") },
      { real: prefix("fd00:10:96::/108"), virtual: prefix("fd74:656c:0:10::/108") },
    ],
    [prefix("10.96.9.9/32"), prefix("10.0.0.0/8")],
  );

  test("maps each address to the same place of the other prefix, and back", () => {
    expect(seen(translation.toVirtual(address("10.96.3.4")))).toBe("240.1.3.4");
    expect(seen(translation.toReal(address("240.1.3.4")))).toBe("10.96.3.4");
    expect(seen(translation.toVirtual(address("fd00:10:96::5:abcd")))).toBe("fd74:656c:0:10::5:abcd");
    expect(translation.toVirtual(address("10.97.0.1"))).toBeUndefined();
    expect(translation.toReal(address("10.96.3.4"))).toBeUndefined();
  });
  test("changes the addresses in a text, and nothing that only looks like one", () => {
    expect(translation.inText("tcp://10.96.3.4:80,[fd00:10:96::1]:80 10.96.9.9")).toBe(
      "tcp://240.1.3.4:80,[fd74:656c:0:10::1]:80 10.96.9.9",
    );
    const others = "110.96.3.4 10.96.3.4.5 10.96.300.4 v10.96.3.4 a:b:c 12:30:00 10.97.0.1";
    expect(translation.inText(others)).toBe(others);
    expect(new Translation().inText("10.96.3.4")).toBe("10.96.3.4");
  });
  test("lets the most specific prefix win", () => {
    expect(seen(translation.toVirtual(address("10.96.7.1")))).toBe("240.0.0.1");
    expect(translation.toVirtual(address("10.96.9.9"))).toBeUndefined();
  });
  test("is undone by its inverse for every address", () => {
    const bytes = fc.uint8Array({ minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(bytes, bytes, fc.integer({ min: 0, max: 32 }), (real, virtual, bits) => {
        const mapping = {
          real: prefix(`${formatAddress(real)}/${bits}`),
          virtual: prefix(`${formatAddress(virtual)}/${bits}`),
        };
        const there = new Translation([mapping]).toVirtual(real) ?? new Uint8Array();
        expect(prefixContains(mapping.virtual, there)).toBe(true);
        expect(new Translation([mapping]).toReal(there)).toEqual(real);
      }),
    );
  });
});

describe("findFreePrefix()", () => {
  test("takes the first that nobody has", () => {
    const taken = ["240.0.0.0/16", "240.1.7.0/24", "246.246.0.0/29", "10.0.0.0/8"].map(prefix);
    const find = (bits: number): string => formatPrefix(findFreePrefix(prefix("240.0.0.0/4"), bits, taken)!);
    expect([8, 16, 24, 32].map(find)).toEqual(["241.0.0.0/8", "240.2.0.0/16", "240.1.0.0/24", "240.1.0.0/32"]);
  });
  test("finds none in a pool that is too small, or full", () => {
    expect(findFreePrefix(prefix("246.246.0.0/16"), 12, [])).toBeUndefined();
    expect(findFreePrefix(prefix("246.246.0.0/16"), 24, [prefix("246.0.0.0/8")])).toBeUndefined();
    expect(findFreePrefix(prefix("246.246.0.0/16"), 16, [prefix("246.246.3.3/32")])).toBeUndefined();
  });
  test("never gives what overlaps", () => {
    const range = fc
      .tuple(fc.nat(255), fc.integer({ min: 17, max: 32 }))
      .map(([third, bits]) => prefix(`240.0.${third}.0/${bits}`));
    fc.assert(
      fc.property(fc.array(range), fc.integer({ min: 16, max: 32 }), (taken, bits) => {
        const found = findFreePrefix(prefix("240.0.0.0/16"), bits, taken);
        if (found !== undefined) expect(taken.some((other) => prefixesOverlap(other, found))).toBe(false);
      }),
    );
  });
});
