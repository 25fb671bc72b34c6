// The devices' own little networks, eight addresses for each of a user's connections. 246.246.0.0/16 is what the original
// uses by default: class E, so no real network has it, and Linux routes it like any other. The IPv6 one is a unique local
// prefix (RFC 4193) of our own.
import { AppError } from "#base/error.ts";
import type { OutboundAddresses } from "#daemon/outbound/addresses.ts";

export interface DeviceAddresses {
  readonly outbound: OutboundAddresses;
  /** With prefix length, for the device. */
  readonly prefixes: readonly string[];
  /** Where the daemon's DNS server is seen by systemd-resolved. */
  readonly dnsServer: string;
}

/** Of all slots. */
export const deviceNetworks = ["246.246.0.0/26", "fd74:656c:6570::/122"] as const;
const addressesOfSlot = 8;

const isIpv6 = (cidr: string): boolean => cidr.includes(":");

/**
 * Whether the device is to have IPv6: where the cluster has it or the user wants it routed. On a laptop that has it
 * switched off, a cluster of both families is reached by IPv4; throws where that would reach nothing of what is wanted.
 */
export function planIpv6(wanted: {
  readonly cluster: readonly string[];
  readonly also: readonly string[];
  readonly laptopHasIpv6: boolean;
}): boolean {
  const { cluster, also, laptopHasIpv6 } = wanted;
  if (![...cluster, ...also].some(isIpv6)) return false;
  if (laptopHasIpv6) return true;
  const hopeless = also.find(isIpv6) ?? (cluster.every(isIpv6) ? cluster[0] : undefined);
  if (hopeless === undefined) return false;
  throw new AppError("unsupported", `this laptop has IPv6 switched off, and ${hopeless} is to be reached`, {
    hint: "switch it on: `sudo sysctl net.ipv6.conf.default.disable_ipv6=0`; or use `telepresence connect --proxy`",
  });
}

/** IPv6 only when the cluster has addresses of that family: a laptop may have it switched off. */
export function planDeviceAddresses(wantIpv6: boolean, slot = 0): DeviceAddresses {
  const [first, second, third] = [1, 2, 3].map((number) => slot * addressesOfSlot + number) as [number, number, number];
  const of4 = (number: number): string => `246.246.0.${number}`;
  const of6 = (number: number): string => `fd74:656c:6570::${number.toString(16)}`;
  const v4 = { address: of4(first), peer: of4(second), probe: of4(third) };
  const v6 = { address: of6(first), peer: of6(second), probe: of6(third) };
  return {
    outbound: wantIpv6 ? { v4, v6 } : { v4 },
    prefixes: [`${v4.address}/29`, ...(wantIpv6 ? [`${v6.address}/125`] : [])],
    dnsServer: v4.address,
  };
}
