import { expect, test } from "vitest";
import { parseFamily, parseInstance } from "./layout.ts";

test("parseInstance() takes a short word and refuses what would not do as a name", () => {
  expect(parseInstance(undefined)).toBe("");
  expect(parseInstance("")).toBe("");
  expect(parseInstance("b2")).toBe("-b2");
  for (const bad of ["../x", "a b", "A", "-", "abcdefghijklm"])
    expect(() => parseInstance(bad)).toThrow("small letters");
});

test("parseFamily() takes one of three words, IPv4 where there is none", () => {
  expect([undefined, "", "ipv4", "dual", "ipv6"].map(parseFamily)).toEqual(["ipv4", "ipv4", "ipv4", "dual", "ipv6"]);
  expect(() => parseFamily("6")).toThrow("expected one of ipv4, dual, ipv6");
});
