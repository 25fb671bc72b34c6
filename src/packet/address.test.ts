// Trap 18: a virtual IPv6 address was once written "246.246.0.1313"; text is made and read by one file only.
import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, test } from "vitest";
import {
  formatAddress,
  formatPrefix,
  isGroupAddress,
  parseAddress,
  parsePrefix,
  prefixContains,
  prefixesOverlap,
} from "./address.ts";

const need = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error("expected a value");
  return value;
};

describe("parseAddress()", () => {
  test.each([
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "256.1.1.1",
    "1.2.3.x",
    "",
    "::1::",
    ":1",
    "1:2:3:4:5:6:7",
    "fe80::1%eth0",
    "::12345",
    "1:2:3:4:5:6:7:8:9",
    "1::2:3:4:5:6:7:8",
    "1.2.3.4::",
  ])("refuses %s", (text) => {
    expect(parseAddress(text)).toBeUndefined();
  });
  test("agrees with another implementation on any IPv4 and IPv6 address", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        const host = new URL(text.includes(":") ? `http://[${text}]/` : `http://${text}/`).hostname;
        expect(formatAddress(need(parseAddress(text)))).toBe(host.replace(/^\[|\]$/g, ""));
      }),
    );
  });
  test("reads back what formatAddress() wrote", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ minLength: 4, maxLength: 4 }), fc.uint8Array({ minLength: 16, maxLength: 16 })),
        (bytes) => {
          expect(parseAddress(formatAddress(bytes))).toEqual(bytes);
        },
      ),
    );
  });
  test("writes IPv6 as RFC 5952 says", () => {
    expect(formatAddress(need(parseAddress("2001:DB8:0:0:1:0:0:1")))).toBe("2001:db8::1:0:0:1");
    expect(formatAddress(need(parseAddress("::")))).toBe("::");
    expect(formatAddress(need(parseAddress("1:0:2:3:4:5:6:7")))).toBe("1:0:2:3:4:5:6:7");
  });
});

describe("prefixes", () => {
  test("clear the bits behind the prefix", () => {
    expect(formatPrefix(need(parsePrefix("10.1.2.3/15")))).toBe("10.0.0.0/15");
    expect(formatPrefix(need(parsePrefix("fd00::1/8")))).toBe("fd00::/8");
    expect(formatPrefix(need(parsePrefix("10.1.2.3")))).toBe("10.1.2.3/32");
  });
  test.each(["10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/1e1"])("refuse %s", (text) => {
    expect(parsePrefix(text)).toBeUndefined();
  });
  test("contain exactly what a bit-wise comparison says", () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), fc.nat(32), (network, address, bits) => {
        const prefix = need(parsePrefix(`${network}/${bits}`));
        const expected = ipaddr.IPv4.parse(address).match(ipaddr.IPv4.parse(network), bits);
        expect(prefixContains(prefix, need(parseAddress(address)))).toBe(expected);
      }),
    );
  });
  test("overlap when one holds the other, never across families", () => {
    const prefix = (text: string): ReturnType<typeof parsePrefix> & object => need(parsePrefix(text));
    expect(prefixesOverlap(prefix("10.0.0.0/8"), prefix("10.96.0.0/12"))).toBe(true);
    expect(prefixesOverlap(prefix("10.96.0.0/12"), prefix("10.112.0.0/12"))).toBe(false);
    expect(prefixesOverlap(prefix("0.0.0.0/0"), prefix("::/0"))).toBe(false);
  });
});

test("isGroupAddress() knows multicast, broadcast and the unspecified address", () => {
  const group = (text: string): boolean => {
    const bytes = need(parseAddress(text));
    return isGroupAddress(bytes, 0, bytes.length);
  };
  expect(["224.0.0.251", "239.1.1.1", "255.255.255.255", "0.0.0.0", "ff02::fb", "::"].map(group)).not.toContain(false);
  expect(["240.0.0.1", "246.246.0.1", "10.0.0.255", "10.1.0.0", "fd00::1"].map(group)).not.toContain(true);
});
