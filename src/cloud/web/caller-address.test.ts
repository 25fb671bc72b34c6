// X-Forwarded-For counts only from proxies that were named, from its end on.
import { expect, test } from "vitest";
import { trustProxies } from "./caller-address.ts";

test.each([
  ["nobody is trusted", [], "192.0.2.1", "203.0.113.9", "192.0.2.1"],
  ["a trusted proxy says who came", ["10.0.0.0/8"], "10.0.0.1", "203.0.113.9", "203.0.113.9"],
  [
    "what the caller wrote itself stands before that",
    ["10.0.0.0/8"],
    "10.0.0.1",
    "1.1.1.1, 203.0.113.9",
    "203.0.113.9",
  ],
  ["through two proxies", ["10.0.0.0/8"], "10.0.0.1", "203.0.113.9, 10.0.0.2", "203.0.113.9"],
  ["a stranger's header means nothing", ["10.0.0.0/8"], "192.0.2.1", "10.0.0.9", "192.0.2.1"],
  ["nonsense ends it", ["10.0.0.1"], "10.0.0.1", "x", "10.0.0.1"],
  ["one address has one spelling", ["::1"], "::ffff:192.0.2.1", undefined, "192.0.2.1"],
  ["a network of IPv6 is one caller", [], "2001:db8:0:1:2:3:4:5", undefined, "2001:db8:0:1::"],
  ["a zone changes nothing", ["::1"], "::1", "fe80::7%eth0", "fe80::"],
] as const)("%s", (...[, ranges, peer, header, expected]) => {
  expect(trustProxies(ranges)(peer, header)).toBe(expected);
});

test("a range that is none is named", () => {
  expect(() => trustProxies(["10.0.0.0/99"])).toThrow('--trusted-proxies has "10.0.0.0/99"');
});
