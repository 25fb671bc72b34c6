// The kernel's memory of UDP flows (nfnetlink_conntrack). A flow keeps the way that it had with its first datagram, for
// up to two minutes, whatever the rules say since: a program that asks again from the same port would not come to us
// after a redirect was made, and would go on coming to nobody after it was taken away. Best effort: who keeps no flows,
// or whose kernel cannot tell, has none to forget.
import type { IpAddress } from "#packet/address.ts";
import { sameAddress } from "#packet/address.ts";
import { decodeAttributes, NetlinkWriter, nlm } from "./netlink.ts";
import type { NetlinkMessage } from "./netlink.ts";
import { NetlinkSocket } from "./netlink-socket.ts";

const netlinkNetfilter = 12;
const subsystem = 1; // NFNL_SUBSYS_CTNETLINK
const message = { get: 1, delete: 2 } as const;
const attribute = { original: 1, id: 12, zone: 18 } as const;
const tuple = { ip: 1, protocol: 2 } as const;
const destination = { v4: 2, v6: 4 } as const;
const protocol = { number: 1, destinationPort: 3 } as const;
const udp = 17;
const headerBytes = 4;
const afInet = 2;
const afInet6 = 10;
/** chosen: flows that are looked at; a laptop has a few thousand. */
const maxFlows = 65_536;
/** chosen: flows to nameservers that are forgotten at once. */
const maxForgotten = 4096;

/** How many UDP flows to `port` of one of `addresses` were forgotten. */
export function forgetUdpFlows(addresses: readonly IpAddress[], port: number): number {
  let forgotten = 0;
  for (const [family, bytes] of [
    [afInet, 4],
    [afInet6, 16],
  ] as const) {
    const own = addresses.filter((address) => address.length === bytes);
    if (own.length === 0) continue;
    for (const flow of flowsTo(family, own, port)) forgotten += forget(family, flow) ? 1 : 0;
  }
  return forgotten;
}

/** The attributes by which the kernel finds a flow again. */
type Flow = ReadonlyMap<number, Uint8Array>;

function flowsTo(family: number, addresses: readonly IpAddress[], port: number): readonly Flow[] {
  using socket = new NetlinkSocket(netlinkNetfilter, "unsupported"); // its own: a dump that is given up stays in it
  const sequence = socket.nextSequence();
  const head = { type: (subsystem << 8) | message.get, flags: nlm.request | nlm.dump, sequence };
  const request = new NetlinkWriter().message(head, Uint8Array.of(family, 0, 0, 0)).bytes();
  const found: Flow[] = [];
  let seen = 0;
  socket.dump(request, sequence, "listing UDP flows", (entry) => {
    seen++;
    const flow = flowTo(entry, addresses, port);
    if (flow !== undefined) found.push(flow);
    return seen < maxFlows && found.length < maxForgotten;
  });
  return found;
}

/** Copied: the message is valid during the visit only. */
function flowTo(entry: NetlinkMessage, addresses: readonly IpAddress[], port: number): Flow | undefined {
  const attributes = decodeAttributes(entry.payload, headerBytes);
  if (!leadsTo(attributes.get(attribute.original), addresses, port)) return undefined;
  const kept = [attribute.original, attribute.id, attribute.zone].flatMap((type) => {
    const value = attributes.get(type);
    return value === undefined ? [] : [[type, Uint8Array.from(value)] as const];
  });
  return new Map(kept);
}

function leadsTo(original: Uint8Array | undefined, addresses: readonly IpAddress[], port: number): boolean {
  const ends = nestedIn(original);
  const [protocolOf, addressesOf] = [nestedIn(ends.get(tuple.protocol)), nestedIn(ends.get(tuple.ip))];
  const [high = 0, low = 0] = protocolOf.get(protocol.destinationPort) ?? [];
  if (protocolOf.get(protocol.number)?.[0] !== udp || (high << 8) + low !== port) return false;
  const to = addressesOf.get(destination.v4) ?? addressesOf.get(destination.v6);
  return to !== undefined && addresses.some((address) => sameAddress(address, to));
}

function nestedIn(value: Uint8Array | undefined): ReadonlyMap<number, Uint8Array> {
  return value === undefined ? new Map() : decodeAttributes(value, 0);
}

/** False when it is gone already. */
function forget(family: number, flow: Flow): boolean {
  using socket = new NetlinkSocket(netlinkNetfilter, "unsupported");
  const sequence = socket.nextSequence();
  const head = { type: (subsystem << 8) | message.delete, flags: nlm.request | nlm.ack, sequence };
  const request = new NetlinkWriter().message(head, Uint8Array.of(family, 0, 0, 0), (writer) => {
    for (const [type, value] of flow) writer.attribute(type, value);
  });
  try {
    socket.exchange(request.bytes(), new Set([sequence]), "forgetting a UDP flow");
    return true;
  } catch {
    return false;
  }
}
