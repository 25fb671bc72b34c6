import { expect, test } from "vitest";
import { planIpv6 } from "./device-addresses.ts";

const v4 = ["10.96.0.0/16", "10.244.0.0/24"];
const v6 = ["fd10:96::/112", "fd10:244::/64"];

test.each([
  { cluster: v4, also: [], laptopHasIpv6: true, expected: false },
  { cluster: v6, also: [], laptopHasIpv6: true, expected: true },
  { cluster: [...v4, ...v6], also: [], laptopHasIpv6: true, expected: true },
  { cluster: v4, also: ["fd99::/64"], laptopHasIpv6: true, expected: true },
  { cluster: v4, also: [], laptopHasIpv6: false, expected: false },
  { cluster: [...v4, ...v6], also: [], laptopHasIpv6: false, expected: false },
])("the device's IPv6 for %j", ({ expected, ...wanted }) => {
  expect(planIpv6(wanted)).toBe(expected);
});

test.each([
  { cluster: v6, also: [], named: "fd10:96::/112" },
  { cluster: [...v4, ...v6], also: ["10.0.0.0/8", "fd99::/64"], named: "fd99::/64" },
])("with IPv6 switched off what cannot be reached is refused: %j", ({ named, ...wanted }) => {
  expect(() => planIpv6({ ...wanted, laptopHasIpv6: false })).toThrow(
    `this laptop has IPv6 switched off, and ${named} is to be reached`,
  );
});
