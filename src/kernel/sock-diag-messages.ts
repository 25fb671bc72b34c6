// The kernel's table of TCP connections as netlink messages (sock_diag(7)); pure. Ports and addresses are big-endian,
// all else is in the host's byte order.
//
//   identity  local port 2 | remote port 2 | local address 16 | remote address 16 | interface 4 | cookie 8
//   request   family 1 | protocol 1 | extensions 1 | 0 | states 4 | identity 48
//   answer    family 1 | state 1 | timer 2 | identity 48 | expires 4 | unread 4 | unacknowledged 4 | user 4 | inode 4
import { formatAddress, parseAddress } from "#packet/address.ts";
import { NetlinkWriter, decodeAttributes, nlm, viewOf } from "./netlink.ts";
import type { NetlinkMessage } from "./netlink.ts";

/** Numbers of linux/tcp_states.h. */
export const tcpState = { established: 1, synReceived: 3, closeWait: 8, listen: 10 } as const;

export interface SocketEnd {
  /** IPv4 in its own form, also on a socket of both families. */
  readonly address: string;
  readonly port: number;
}

export interface TcpConnection {
  readonly local: SocketEnd;
  readonly remote: SocketEnd;
  /** Of `tcpState`, or another of the kernel's. */
  readonly state: number;
  /** The same for as long as the socket lives, and never another socket's. */
  readonly cookie: string;
  /** Received and not yet read by the program. */
  readonly unreadBytes: number;
  /** Written by the program and not yet acknowledged, sent or not. */
  readonly unacknowledgedBytes: number;
  /** Left out of what the kernel tells about sockets that are closing. */
  readonly traffic?: TcpTraffic | undefined;
  /** Names the socket to the kernel. */
  readonly identity: Uint8Array;
  readonly family: 4 | 6;
}

/** The ages have the grain of the kernel's tick, 1 to 10 ms; at first they are the connection's age. */
export interface TcpTraffic {
  readonly sinceSentMs: number;
  readonly sinceReceivedMs: number;
  /** Since the last packet of any kind that acknowledges something. */
  readonly sinceAcknowledgedMs: number;
  /** The FIN counts as one. */
  readonly receivedBytes: number;
  /** Packets with data; 0 where the kernel is too old to count them. */
  readonly receivedSegments: number;
}

export interface DumpRequest {
  /** 6 includes IPv4 on sockets of both families. */
  readonly family: 4 | 6;
  /** None is all. */
  readonly states: readonly number[];
  /** 0 is any. */
  readonly localPort: number;
  readonly remotePort: number;
}

const byFamily = 20;
const destroy = 21;
const identityBytes = 48;
const answerBytes = 72;
/** Of linux/in.h. */
export const protocols = { tcp: 6, udp: 17 } as const;
type Protocol = (typeof protocols)[keyof typeof protocols];
const infoAttribute = 2;
const infoExtension = 1 << (infoAttribute - 1);
const allStates = 0xffff_ffff;
const mappedPrefix = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** All connections of one family that have the ports. */
export function encodeConnectionDump(sequence: number, request: DumpRequest): Uint8Array {
  const identity = new Uint8Array(identityBytes);
  viewOf(identity).setUint16(0, request.localPort);
  viewOf(identity).setUint16(2, request.remotePort);
  const states = request.states.reduce((bits, state) => bits | (1 << state), 0);
  const body = requestBody(request.family, states === 0 ? allStates : states, identity);
  return new NetlinkWriter().message({ type: byFamily, flags: nlm.request | nlm.dump, sequence }, body).bytes();
}

/** Whatever socket has these ends, of which TCP may have one that listens. UDP wants them the other way round. */
export function encodeLookup(
  sequence: number,
  ends: Pick<TcpConnection, "local" | "remote">,
  protocol: Protocol = protocols.tcp,
): Uint8Array {
  const identity = new Uint8Array(identityBytes);
  viewOf(identity).setUint16(0, ends.local.port);
  viewOf(identity).setUint16(2, ends.remote.port);
  const [local, remote] = [parseAddress(ends.local.address), parseAddress(ends.remote.address)];
  identity.set(local ?? [], 4);
  identity.set(remote ?? [], 20);
  identity.fill(0xff, 40); // whatever its cookie
  const body = requestBody(local?.length === 16 ? 6 : 4, allStates, identity);
  body[1] = protocol;
  return new NetlinkWriter().message({ type: byFamily, flags: nlm.request | nlm.ack, sequence }, body).bytes();
}

/** Ends the connection as if its far end had reset it, and tells the far end so. */
export function encodeDestroy(sequence: number, connection: Pick<TcpConnection, "family" | "identity">): Uint8Array {
  const body = requestBody(connection.family, allStates, connection.identity);
  return new NetlinkWriter().message({ type: destroy, flags: nlm.request | nlm.ack, sequence }, body).bytes();
}

/** Undefined for what is not a connection of TCP over IP. */
export function decodeConnection(message: NetlinkMessage): TcpConnection | undefined {
  const { payload } = message;
  const isIpv4 = payload[0] === 2;
  if (message.type !== byFamily || payload.length < answerBytes || (!isIpv4 && payload[0] !== 10)) return undefined;
  const view = viewOf(payload);
  const address = (offset: number): string => addressText(payload.subarray(offset, offset + 16), isIpv4);
  const identity = Uint8Array.from(payload.subarray(4, 4 + identityBytes));
  return {
    local: { address: address(8), port: view.getUint16(4) },
    remote: { address: address(24), port: view.getUint16(6) },
    state: payload[1] ?? 0,
    cookie: Buffer.from(identity.subarray(40)).toString("hex"),
    unreadBytes: view.getUint32(56, true),
    unacknowledgedBytes: view.getUint32(60, true),
    traffic: decodeTraffic(decodeAttributes(payload, answerBytes).get(infoAttribute)),
    identity,
    family: isIpv4 ? 4 : 6,
  };
}

/** The user whose program has the socket. Of one that no program has any more the kernel says root, and no inode. */
export function decodeOwner({ type, payload }: NetlinkMessage): SocketOwner | undefined {
  if (type !== byFamily || payload.length < answerBytes) return undefined;
  const view = viewOf(payload);
  return view.getUint32(68, true) === 0 ? undefined : { state: payload[1] ?? 0, uid: view.getUint32(64, true) };
}

export interface SocketOwner {
  readonly uid: number;
  readonly state: number;
}

/** From struct tcp_info, which only ever grows at its end. */
function decodeTraffic(info: Uint8Array | undefined): TcpTraffic | undefined {
  if (info === undefined || info.length < 136) return undefined;
  const view = viewOf(info);
  return {
    sinceSentMs: view.getUint32(44, true),
    sinceReceivedMs: view.getUint32(52, true),
    sinceAcknowledgedMs: view.getUint32(56, true),
    receivedBytes: Number(view.getBigUint64(128, true)),
    receivedSegments: info.length < 156 ? 0 : view.getUint32(152, true),
  };
}

function requestBody(family: 4 | 6, states: number, identity: Uint8Array): Uint8Array {
  const body = new Uint8Array(8 + identityBytes);
  body[0] = family === 4 ? 2 : 10;
  body[1] = protocols.tcp;
  body[2] = infoExtension;
  viewOf(body).setUint32(4, states >>> 0, true);
  body.set(identity, 8);
  return body;
}

function addressText(bytes: Uint8Array, isIpv4: boolean): string {
  if (isIpv4) return formatAddress(bytes.subarray(0, 4));
  const isMapped = mappedPrefix.every((byte, index) => bytes[index] === byte);
  return formatAddress(isMapped ? bytes.subarray(12) : bytes);
}
