import { describe, expect, test } from "vitest";
import { createDialGuard, rangeSet } from "./guard.ts";
import type { GuardOptions } from "./guard.ts";

const guard = (options: Partial<GuardOptions> = {}) =>
  createDialGuard({
    ownAddresses: ["10.1.0.7", "fd12::7"],
    nodeAddresses: ["192.168.5.10", "fd99::1"],
    allowNodes: false,
    allowRanges: [],
    denyRanges: [],
    ...options,
  });

describe("createDialGuard()", () => {
  test.each([
    ["127.0.0.1", "loopback"],
    ["127.9.9.9", "loopback"],
    ["::1", "loopback"],
    ["0:0:0:0:0:0:0:1", "loopback"],
    ["0.0.0.0", "unspecified"],
    ["::", "unspecified"],
    ["169.254.169.254", "metadata"],
    ["fd00:ec2::254", "metadata"],
    ["FD00:EC2:0:0::254", "metadata"],
    ["168.63.129.16", "metadata"],
    ["169.254.1.1", "link-local"],
    ["fe80::1", "link-local"],
    ["224.0.0.251", "multicast"],
    ["ff02::1", "multicast"],
    ["255.255.255.255", "broadcast"],
    ["10.1.0.7", "own pod"],
    ["fd12::7", "own pod"],
    ["fd12:0:0::7", "own pod"],
    ["192.168.5.10", "node"],
    ["fd99::1", "node"],
    // IPv6 forms that lead to an IPv4 address
    ["::ffff:127.0.0.1", "loopback"],
    ["::ffff:7f00:1", "loopback"],
    ["::ffff:169.254.169.254", "metadata"],
    ["::ffff:10.1.0.7", "own pod"],
    ["::ffff:192.168.5.10", "node"],
    ["::127.0.0.1", "loopback"],
    ["::ffff:0:127.0.0.1", "loopback"],
    ["64:ff9b::169.254.169.254", "metadata"],
    ["64:ff9b:1::a9fe:a9fe", "metadata"],
    ["2002:7f00:1::1", "loopback"],
    ["2002:a9fe:a9fe::", "metadata"],
    ["2001:db8::5efe:127.0.0.1", "loopback"],
    // not plain addresses
    ["0x7f.1", "plain"],
    ["2130706433", "plain"],
    ["127.1", "plain"],
    ["fe80::1%eth0", "plain"],
    ["localhost", "plain"],
    ["", "plain"],
  ])("refuses %s", (address, reason) => {
    expect(guard().check(address)).toContain(reason);
  });

  test.each(["10.1.0.8", "10.96.0.1", "8.8.8.8", "fd12::8", "2001:db8::1", "::ffff:10.1.0.8", "100.64.0.1"])(
    "allows %s",
    (address) => {
      expect(guard().check(address)).toBeUndefined();
    },
  );

  test("allows nodes when the install says so, or lists them", () => {
    expect(guard({ allowNodes: true }).check("192.168.5.10")).toBeUndefined();
    expect(guard({ allowRanges: ["192.168.5.0/24"] }).check("192.168.5.10")).toBeUndefined();
  });
  test("an allow list excludes everything else, and denial wins over it", () => {
    const strict = guard({ allowRanges: ["10.0.0.0/8", "127.0.0.0/8"], denyRanges: ["10.5.0.0/16"] });
    expect(strict.check("10.1.0.8")).toBeUndefined();
    expect(strict.check("11.0.0.1")).toContain("none of the ranges");
    expect(strict.check("10.5.0.1")).toContain("denies");
    expect(strict.check("::ffff:10.5.0.1")).toContain("denies");
    expect(strict.check("127.0.0.1")).toContain("loopback");
  });
  test("a malformed range is a configuration error that names it", () => {
    expect(() => rangeSet(["10.0.0.0/40"])).toThrow('"10.0.0.0/40"');
    expect(() => rangeSet(["ten"])).toThrow('"ten"');
  });
});
