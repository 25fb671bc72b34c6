// What the dialer of a pod of ours refuses (DESIGN §6): whoever may port-forward to it borrows its network identity, so
// everything that only the manager's pod or its node could reach stays out of reach; of an agent's pod, our own ports. Called on the address that is
// really dialled, after any resolving, so that a name cannot be rebound between check and use.
// Invariant: an IPv6 form that carries an IPv4 address is judged by both.
import { BlockList, isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { AppError } from "#base/error.ts";

export interface GuardOptions {
  /** Addresses of the manager's own pod. */
  readonly ownAddresses: readonly string[];
  readonly nodeAddresses: readonly string[];
  readonly allowNodes: boolean;
  /** When not empty, only these ranges (CIDR) are dialled. */
  readonly allowRanges: readonly string[];
  readonly denyRanges: readonly string[];
  /** In an application's pod its loopback is wanted; what must not be reached there are these ports, of its addresses too. */
  readonly beside?: { readonly podAddresses: readonly string[]; readonly ownPorts: () => readonly number[] };
}

export interface DialGuard {
  /** Why this address is not dialled at this port, undefined when it may be. */
  check(address: string, port?: number): string | undefined;
}

interface FixedRefusal {
  readonly why: string;
  readonly list: BlockList;
}

const loopbackRanges = ["127.0.0.0/8", "::1/128"];
const loopbackRefusal = refusal("is loopback", loopbackRanges);
/** Refused whatever the install allows; the first that matches gives the reason. */
const fixedRefusals: readonly FixedRefusal[] = [
  refusal("is unspecified", ["0.0.0.0/8", "::/128"]),
  // The metadata services of AWS, Google, Azure, Alibaba and Oracle that are not link-local.
  refusal("is a cloud metadata address", [
    "169.254.169.254/32",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
  ]),
  refusal("is link-local", ["169.254.0.0/16", "fe80::/10"]),
  refusal("is multicast", ["224.0.0.0/4", "ff00::/8"]),
  refusal("is reserved or broadcast", ["240.0.0.0/4"]),
];

export interface NodeGuard extends DialGuard {
  /** Nodes that have been learned since, instead of those learned before. */
  setMoreNodes(addresses: readonly string[]): void;
}

export function createDialGuard(options: GuardOptions): NodeGuard {
  const own = addressSet(options.ownAddresses);
  let nodes = addressSet(options.nodeAddresses);
  const deny = rangeSet(options.denyRanges);
  const allow = options.allowRanges.length === 0 ? undefined : rangeSet(options.allowRanges);

  const isAllowed = (address: string, family: "ipv4" | "ipv6"): boolean => allow?.check(address, family) ?? true;
  const isForbiddenNode = (address: string, family: "ipv4" | "ipv6"): boolean =>
    nodes.check(address, family) && !options.allowNodes && !(allow?.check(address, family) ?? false);
  const { beside } = options;
  const refusals = beside === undefined ? [loopbackRefusal, ...fixedRefusals] : fixedRefusals;
  const shared = rangeSet([...loopbackRanges, ...(beside?.podAddresses ?? [])]);
  const isOwnPort = (port: number): boolean => beside?.ownPorts().includes(port) ?? false;

  const checkOne = (address: string, port: number): string | undefined => {
    const family = isIP(address) === 6 ? "ipv6" : "ipv4";
    if (isOwnPort(port) && shared.check(address, family)) return "and port are the traffic-agent's own";
    const fixed = refusals.find((entry) => entry.list.check(address, family));
    if (fixed !== undefined) return fixed.why;
    if (own.check(address, family)) return "is the traffic-manager's own pod";
    if (deny.check(address, family)) return "is in a range that this install denies";
    if (isForbiddenNode(address, family)) return "is a node of the cluster, which this install does not allow";
    return isAllowed(address, family) ? undefined : "is in none of the ranges that this install allows";
  };

  return {
    setMoreNodes: (addresses) => {
      nodes = addressSet([...options.nodeAddresses, ...addresses]);
    },
    check: (address, port = 0) => {
      // Strict text forms only: "0x7f.1", "2130706433" and zones mean different things to different resolvers.
      if (isIP(address) === 0 || address.includes("%")) return "is not a plain IP address";
      for (const form of formsOf(address)) {
        const why = checkOne(form, port);
        if (why !== undefined) return why;
      }
      return undefined;
    },
  };
}

/** The address itself and the IPv4 address that it carries in any of the known ways. */
function formsOf(address: string): readonly string[] {
  if (isIP(address) === 4) return [address];
  const bytes = ipaddr.IPv6.parse(address).toByteArray();
  const at = embeddedAt(bytes);
  const canonical = ipaddr.IPv6.parse(address).toString();
  return at === undefined ? [canonical] : [...formsWhenMapped(bytes, canonical), bytes.slice(at, at + 4).join(".")];
}

/** A v4-mapped address is nothing but its IPv4 address, to the kernel as well; the others are addresses of their own. */
function formsWhenMapped(bytes: readonly number[], canonical: string): readonly string[] {
  return startsWith(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) ? [] : [canonical];
}

/** Where an IPv4 address sits: mapped, compatible, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215), 6to4, ISATAP. */
function embeddedAt(bytes: readonly number[]): number | undefined {
  const zeros = (count: number): readonly number[] => new Array<number>(count).fill(0);
  if (startsWith(bytes, [...zeros(10), 0xff, 0xff])) return 12;
  if (startsWith(bytes, zeros(12)) && bytes.slice(12).some((byte, index) => byte !== (index === 3 ? 1 : 0))) return 12;
  if (startsWith(bytes, [...zeros(8), 0xff, 0xff, 0, 0])) return 12;
  if (startsWith(bytes, [0, 0x64, 0xff, 0x9b])) return 12;
  if (startsWith(bytes, [0x20, 0x02])) return 2;
  if (bytes[10] === 0x5e && bytes[11] === 0xfe && (bytes[8] === 0 || bytes[8] === 2) && bytes[9] === 0) return 12;
  return undefined;
}

function startsWith(bytes: readonly number[], prefix: readonly number[]): boolean {
  return prefix.every((byte, index) => bytes[index] === byte);
}

function refusal(why: string, ranges: readonly string[]): FixedRefusal {
  return { why, list: rangeSet(ranges) };
}

function addressSet(addresses: readonly string[]): BlockList {
  const list = new BlockList();
  for (const address of addresses) {
    const family = isIP(address);
    if (family !== 0 && !address.includes("%")) list.addAddress(address, family === 6 ? "ipv6" : "ipv4");
  }
  return list;
}

/** Ranges in CIDR form; a bare address is a range of one. */
export function rangeSet(ranges: readonly string[]): BlockList {
  const list = new BlockList();
  for (const range of ranges) {
    const [address = "", prefixText] = range.split("/");
    const family = isIP(address);
    const longest = family === 6 ? 128 : 32;
    const prefix = prefixText === undefined ? longest : Number(prefixText);
    if (family === 0 || !Number.isInteger(prefix) || prefix < 0 || prefix > longest) {
      throw new AppError("invalid_config", `range "${range}" is not of the form 10.0.0.0/8`);
    }
    list.addSubnet(address, prefix, family === 6 ? "ipv6" : "ipv4");
  }
  return list;
}
