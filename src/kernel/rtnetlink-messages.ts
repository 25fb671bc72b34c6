// The part of rtnetlink(7) that a device with routes needs, as bytes; pure.
import type { IpAddress, Prefix } from "#packet/address.ts";
import { decodeAttributes, decodeText, decodeU32, NetlinkWriter, nlm, viewOf } from "./netlink.ts";
import type { NetlinkMessage } from "./netlink.ts";

export const rtm = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
} as const;

export const routeTable = { default: 253, main: 254, local: 255 } as const;
/** What happens to a packet that takes the route, as `ip route` names it. */
export const routeTypes = [
  "unspec",
  "unicast",
  "local",
  "broadcast",
  "anycast",
  "multicast",
  "blackhole",
  "unreachable",
  "prohibit",
  "throw",
] as const;
export type RouteType = (typeof routeTypes)[number];

export interface Route {
  readonly destination: Prefix;
  readonly type: RouteType;
  readonly table: number;
  readonly ifIndex: number | undefined;
  readonly gateway: IpAddress | undefined;
  /** The address that packets by this route leave from, when the route says so. */
  readonly source: IpAddress | undefined;
}

export interface InterfaceAddress {
  readonly ifIndex: number;
  readonly address: IpAddress;
  readonly bits: number;
}

export interface Link {
  readonly ifIndex: number;
  readonly name: string;
  readonly up: boolean;
  /** The other end of its cable is there. */
  readonly hasCarrier: boolean;
  readonly mtu: number | undefined;
  /** A word of its maker's for who looks at it (`ip link`); "" when there is none. */
  readonly alias: string;
}

const afInet = 2;
const afInet6 = 10;
const iffUp = 1;
const iffLowerUp = 0x10000;
const iflaIfname = 3;
const iflaMtu = 4;
const iflaTxqlen = 13;
const iflaIfalias = 20;
/**
 * chosen: packets that wait while our process does not run; more are lost. Of the usual 500 a busy machine loses many:
 * 1,363 of 199,000 packets of the benchmarks at a load of 25, and each is a time-out or a retransmission.
 */
const queuedPackets = 2000;
const iflaAfSpec = 26;
const iflaInet6AddrGenMode = 8;
const addrGenModeNone = 1;
const ifaAddress = 1;
const ifaLocal = 2;
const ifaFlags = 8;
const ifaFlagNodad = 2;
const rtaDst = 1;
const rtaOif = 4;
const rtaGateway = 5;
const rtaPrefsrc = 7;
const rtaMultipath = 9;
const rtaTable = 15;
const rtprotStatic = 4;
const scopeUniverse = 0;
const scopeLink = 253;
const rtnUnicast = 1;

/** MTU and up, and no IPv6 address of the kernel's own making: it would send router solicitations into the device. */
export function encodeLinkUp(sequence: number, ifIndex: number, mtu: number): Uint8Array {
  const header = linkHeader(ifIndex, iffUp, iffUp);
  return new NetlinkWriter()
    .message({ type: rtm.newLink, flags: nlm.request | nlm.ack, sequence }, header, (writer) =>
      writer.u32(iflaMtu, mtu).u32(iflaTxqlen, queuedPackets),
    )
    .bytes();
}

export function encodeNoAutomaticAddress(sequence: number, ifIndex: number): Uint8Array {
  return new NetlinkWriter()
    .message({ type: rtm.newLink, flags: nlm.request | nlm.ack, sequence }, linkHeader(ifIndex, 0, 0), (writer) =>
      writer.nested(iflaAfSpec, (spec) =>
        spec.nested(afInet6, (inet6) => inet6.u8(iflaInet6AddrGenMode, addrGenModeNone)),
      ),
    )
    .bytes();
}

export function encodeNewAddress(sequence: number, ifIndex: number, address: IpAddress, bits: number): Uint8Array {
  const header = new Uint8Array(8);
  header[0] = familyOf(address);
  header[1] = bits;
  viewOf(header).setUint32(4, ifIndex, true);
  const flags = nlm.request | nlm.ack | nlm.create | nlm.exclusive;
  return new NetlinkWriter()
    .message({ type: rtm.newAddress, flags, sequence }, header, (writer) => {
      writer.attribute(ifaLocal, address).attribute(ifaAddress, address);
      // Without this an IPv6 address is tentative, and unusable, for the first second.
      if (address.length === 16) writer.u32(ifaFlags, ifaFlagNodad);
    })
    .bytes();
}

/** protocol: below IFALIASZ (256) with the byte that ends it. */
export const maxLinkAliasBytes = 254;

export function encodeLinkAlias(sequence: number, ifIndex: number, alias: string): Uint8Array {
  return new NetlinkWriter()
    .message({ type: rtm.newLink, flags: nlm.request | nlm.ack, sequence }, linkHeader(ifIndex, 0, 0), (writer) =>
      writer.text(iflaIfalias, alias),
    )
    .bytes();
}

/** A device route in the main table. */
export function encodeRouteChange(
  sequence: number,
  change: "add" | "delete",
  destination: Prefix,
  ifIndex: number,
): Uint8Array {
  const header = routeHeader(destination.address, destination.bits);
  header[4] = routeTable.main;
  header[5] = rtprotStatic;
  header[6] = destination.address.length === 4 ? scopeLink : scopeUniverse;
  header[7] = rtnUnicast;
  const flags = nlm.request | nlm.ack | (change === "add" ? nlm.create | nlm.exclusive : 0);
  return new NetlinkWriter()
    .message({ type: change === "add" ? rtm.newRoute : rtm.deleteRoute, flags, sequence }, header, (writer) =>
      writer.attribute(rtaDst, destination.address).u32(rtaOif, ifIndex),
    )
    .bytes();
}

/** Which route the kernel itself would take to the address. */
export function encodeRouteTo(sequence: number, address: IpAddress): Uint8Array {
  const header = routeHeader(address, address.length * 8);
  return new NetlinkWriter()
    .message({ type: rtm.getRoute, flags: nlm.request | nlm.ack, sequence }, header, (writer) =>
      writer.attribute(rtaDst, address),
    )
    .bytes();
}

/** All links, addresses or routes of both families. */
export function encodeDump(sequence: number, type: number, headerBytes: number): Uint8Array {
  return new NetlinkWriter()
    .message({ type, flags: nlm.request | nlm.dump, sequence }, new Uint8Array(headerBytes))
    .bytes();
}

export function decodeLink(message: NetlinkMessage): Link | undefined {
  if (message.type !== rtm.newLink || message.payload.length < 16) return undefined;
  const view = viewOf(message.payload);
  const attributes = decodeAttributes(message.payload, 16);
  const [name, alias] = [attributes.get(iflaIfname), attributes.get(iflaIfalias)];
  return {
    ifIndex: view.getInt32(4, true),
    name: name === undefined ? "" : decodeText(name),
    up: (view.getUint32(8, true) & iffUp) !== 0,
    hasCarrier: (view.getUint32(8, true) & iffLowerUp) !== 0,
    mtu: decodeU32(attributes.get(iflaMtu)),
    alias: alias === undefined ? "" : decodeText(alias),
  };
}

export function decodeAddress(message: NetlinkMessage): InterfaceAddress | undefined {
  if (message.type !== rtm.newAddress || message.payload.length < 8) return undefined;
  const attributes = decodeAttributes(message.payload, 8);
  const address = attributes.get(ifaLocal) ?? attributes.get(ifaAddress);
  if (address === undefined || !isAddress(address)) return undefined;
  const ifIndex = viewOf(message.payload).getUint32(4, true);
  return { ifIndex, address: Uint8Array.from(address), bits: message.payload[1] ?? 0 };
}

export function decodeRoute(message: NetlinkMessage): Route | undefined {
  const family = message.payload[0];
  const isRoute = message.type === rtm.newRoute && message.payload.length >= 12;
  if (!isRoute || (family !== afInet && family !== afInet6)) return undefined;
  const view = viewOf(message.payload);
  const attributes = decodeAttributes(message.payload, 12);
  const copy = (type: number): IpAddress | undefined => copyAddress(attributes.get(type));
  const address = copy(rtaDst) ?? new Uint8Array(family === afInet ? 4 : 16);
  return {
    destination: { address, bits: view.getUint8(1) },
    type: routeTypes[view.getUint8(7)] ?? "unspec",
    table: decodeU32(attributes.get(rtaTable)) ?? view.getUint8(4),
    ifIndex: decodeU32(attributes.get(rtaOif)) ?? firstHop(attributes.get(rtaMultipath)),
    gateway: copy(rtaGateway),
    source: copy(rtaPrefsrc),
  };
}

/** The interface of the first of several next hops: rtnexthop is length 2, flags 1, hops 1, interface 4. */
function firstHop(multipath: Uint8Array | undefined): number | undefined {
  return multipath === undefined || multipath.length < 8 ? undefined : viewOf(multipath).getInt32(4, true);
}

function linkHeader(ifIndex: number, flags: number, change: number): Uint8Array {
  const header = new Uint8Array(16);
  const view = viewOf(header);
  view.setInt32(4, ifIndex, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, change, true);
  return header;
}

function routeHeader(address: IpAddress, bits: number): Uint8Array {
  const header = new Uint8Array(12);
  header[0] = familyOf(address);
  header[1] = bits;
  return header;
}

function familyOf(address: IpAddress): number {
  return address.length === 4 ? afInet : afInet6;
}

function copyAddress(value: Uint8Array | undefined): IpAddress | undefined {
  return value !== undefined && isAddress(value) ? Uint8Array.from(value) : undefined;
}

function isAddress(value: Uint8Array): boolean {
  return value.length === 4 || value.length === 16;
}
