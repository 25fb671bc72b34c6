import { describe, expect, test } from "vitest";
import { encodeLocalRoute, encodeMarkRule } from "./mark-route-messages.ts";
import type { MarkRoute } from "./mark-route-messages.ts";

const route: MarkRoute = { family: 4, mark: 0x01020304, table: 0x01020304, priority: 5445 };
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

describe("encodeMarkRule()", () => {
  test("is `ip rule add fwmark 0x1020304 lookup 16909060 priority 5445`", () => {
    expect(hex(encodeMarkRule(1, "add", route))).toBe(
      [
        "3c000000" + "2000" + "0506" + "01000000" + "00000000", // length 60, RTM_NEWRULE, request ack create excl
        "02000000" + "00000001" + "00000000", // IPv4, to a table
        "08000600" + "45150000",
        "08000a00" + "04030201",
        "08001000" + "ffffffff",
        "08000f00" + "04030201",
      ].join(""),
    );
  });

  test("deletes without the flags of making", () => {
    const bytes = Buffer.from(encodeMarkRule(1, "delete", { ...route, family: 6 }));
    expect(bytes.readUInt16LE(4)).toBe(33);
    expect(bytes.readUInt16LE(6)).toBe(0x05);
    expect(bytes[16]).toBe(10);
  });
});

describe("encodeLocalRoute()", () => {
  test("is `ip route add local default dev lo table 16909060`", () => {
    expect(hex(encodeLocalRoute(2, "add", route))).toBe(
      [
        "2c000000" + "1800" + "0506" + "02000000" + "00000000", // length 44, RTM_NEWROUTE
        "02000000" + "0004fe02" + "00000000", // IPv4, no prefix, static, scope host, local
        "08000400" + "01000000",
        "08000f00" + "04030201",
      ].join(""),
    );
  });

  test("has no scope for IPv6", () => {
    expect(encodeLocalRoute(2, "delete", { ...route, family: 6 })[16 + 6]).toBe(0);
  });
});
