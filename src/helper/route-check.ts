// What the helper refuses as a route, pure: everything whose capture would cut the laptop off, or take over what is
// somebody else's. Each refusal names the route and what stands against it.
import { AppError } from "#base/error.ts";
import type { InterfaceAddress, Route } from "#kernel/rtnetlink-messages.ts";
import { formatAddress, formatPrefix, parsePrefix, prefixContains, prefixesOverlap } from "#packet/address.ts";
import type { IpAddress, Prefix } from "#packet/address.ts";
import { deviceOwner } from "#wire/helper.ts";

/** The host as it is, without what is ours. */
export interface HostNetwork {
  /** Of the main table; routes of our own device left out. */
  readonly routes: readonly Route[];
  readonly addresses: readonly InterfaceAddress[];
  readonly resolvers: readonly IpAddress[];
  /** What other connections must reach outside of their clusters, and by which device these are known. */
  readonly needed: readonly { readonly address: IpAddress; readonly device: string }[];
  readonly linkName: (ifIndex: number) => string;
}

/** chosen: wider than any cluster's range; a wider one is a default route in disguise. */
const minBits = { v4: 8, v6: 8 } as const;
/** VPNs split the default route in two halves, and IPv6 has 2000::/3: those are defaults, and overlap everything. */
const maxDefaultBits = { v4: 1, v6: 3 } as const;

const reserved = [
  ["0.0.0.0/8", "this host"],
  ["127.0.0.0/8", "loopback"],
  ["169.254.0.0/16", "link-local addresses"],
  ["224.0.0.0/4", "multicast"],
  ["255.255.255.255/32", "broadcast"],
  ["::/127", "loopback"],
  ["::ffff:0:0/96", "IPv4 in IPv6"],
  ["fe80::/10", "link-local addresses"],
  ["ff00::/8", "multicast"],
].map(([text = "", meaning = ""]) => ({ prefix: known(text), meaning }));

/** What the caller says of the routes that it wants. */
export interface RouteWishes {
  /** In no route. */
  readonly never: readonly IpAddress[];
  /** What lies inside of these may take a part of a wider route, but not of another connection's. */
  readonly overlap: readonly Prefix[];
}

/** Throws `route_conflict`, or `protocol` for what is no prefix at all. */
export function checkRoutes(wanted: readonly Prefix[], host: HostNetwork, { never, overlap }: RouteWishes): void {
  const guarded = [
    ...never.map((address) => ({ address, what: "which must stay reachable outside the cluster" })),
    ...host.addresses.map(({ address, ifIndex }) => ({
      address,
      what: `this machine's own address on ${host.linkName(ifIndex)}`,
    })),
    ...gatewaysOf(host.routes).map((address) => ({ address, what: "a gateway of this machine" })),
    ...host.needed.map(({ address, device }) => ({ address, what: `which the connection of ${device} needs` })),
    ...host.resolvers.map((address) => ({ address, what: "a nameserver of this machine" })),
  ];
  const standing = host.routes.filter(isTaken);
  const mayTake = (prefix: Prefix, { destination, ifIndex }: Route): boolean =>
    destination.bits < prefix.bits &&
    overlap.some((allowed) => allowed.bits <= prefix.bits && prefixContains(allowed, prefix.address)) &&
    (ifIndex === undefined || deviceOwner(host.linkName(ifIndex)) === undefined);
  for (const prefix of wanted) {
    checkRange(prefix);
    const hit = guarded.find(({ address }) => prefixContains(prefix, address));
    if (hit !== undefined) {
      throw refusal(prefix, `contains ${formatAddress(hit.address)}, ${hit.what}`, [formatAddress(hit.address)]);
    }
    const other = standing.find(
      (route) =>
        sameFamily(route.destination, prefix) && prefixesOverlap(route.destination, prefix) && !mayTake(prefix, route),
    );
    if (other !== undefined) throw overlapRefusal(prefix, other, host);
  }
}

/** A prefix of the wire; bits behind its length must be zero. */
export function parseRoute(text: string): Prefix {
  const prefix = text.includes("/") ? parsePrefix(text) : undefined;
  if (prefix !== undefined && formatPrefix(prefix) === text) return prefix;
  throw new AppError("protocol", `"${text}" is no route; expected an address range in canonical form`);
}

function checkRange(prefix: Prefix): void {
  const family = prefix.address.length === 4 ? "v4" : "v6";
  if (prefix.bits < minBits[family]) {
    throw refusal(prefix, `is too wide; expected at least /${minBits[family]}`, []);
  }
  const hit = reserved.find((entry) => sameFamily(entry.prefix, prefix) && prefixesOverlap(entry.prefix, prefix));
  if (hit !== undefined) throw refusal(prefix, `overlaps ${formatPrefix(hit.prefix)} (${hit.meaning})`, []);
}

function gatewaysOf(routes: readonly Route[]): readonly IpAddress[] {
  return routes.flatMap((route) => (route.gateway === undefined ? [] : [route.gateway]));
}

/** Somebody's choice about where an address goes; defaults and the kernel's own housekeeping are not. */
function isTaken({ destination, type }: Route): boolean {
  const maxBits = destination.address.length === 4 ? maxDefaultBits.v4 : maxDefaultBits.v6;
  const decides = type === "unicast" || type === "blackhole" || type === "unreachable" || type === "prohibit";
  return decides && destination.bits > maxBits;
}

function sameFamily(left: Prefix, right: Prefix): boolean {
  return left.address.length === right.address.length;
}

function overlapRefusal(prefix: Prefix, { destination, ifIndex, gateway, type }: Route, host: HostNetwork): AppError {
  const via = gateway === undefined ? "" : ` via ${formatAddress(gateway)}`;
  const device = ifIndex === undefined || type !== "unicast" ? "" : ` dev ${host.linkName(ifIndex)}`;
  const kind = type === "unicast" ? "" : `${type} `;
  const other = formatPrefix(destination);
  return refusal(prefix, `overlaps this machine's route ${kind}${other}${via}${device}`, [other]);
}

function refusal(prefix: Prefix, what: string, against: readonly string[]): AppError {
  const route = formatPrefix(prefix);
  return new AppError("route_conflict", `the cluster's range ${route} ${what}`, {
    hint: "leave the addresses out with --never-proxy, see them at others with --vnat, or take the other route away",
    fields: { route, against },
  });
}

function known(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw new AppError("internal", `${text} is no prefix`);
  return prefix;
}
