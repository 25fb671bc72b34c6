// SOCKS5 (RFC 1928) as bytes, pure: what a program sends, what it is answered.
import { formatAddress } from "#packet/address.ts";

export const socksVersion = 5;
export const socksMethods = { none: 0x00, noneAcceptable: 0xff } as const;
export const socksCommands = { connect: 1, udpAssociate: 3 } as const;
/** RFC 1928 §6. */
export const socksReplies = {
  succeeded: 0,
  failure: 1,
  denied: 2,
  networkUnreachable: 3,
  hostUnreachable: 4,
  refused: 5,
  /** The nearest there is to a time-out. */
  ttlExpired: 6,
  commandUnsupported: 7,
  addressUnsupported: 8,
} as const;
export type SocksReply = (typeof socksReplies)[keyof typeof socksReplies];

const addressTypes = { ipv4: 1, name: 3, ipv6: 4 } as const;

export interface SocksAddress {
  readonly host: string;
  readonly port: number;
}

/** How many bytes follow an address type and its first byte, port included; undefined for a type that is none. */
export function addressRestBytes(type: number, first: number): number | undefined {
  switch (type) {
    case addressTypes.ipv4:
      return 3 + 2;
    case addressTypes.ipv6:
      return 15 + 2;
    case addressTypes.name:
      return first + 2;
    default:
      return undefined;
  }
}

/** The address after its type: `bytes` begins with the type. Undefined when it is not all there, or malformed. */
export function readAddress(bytes: Uint8Array): (SocksAddress & { readonly bytes: number }) | undefined {
  const [type = 0, first] = bytes;
  if (first === undefined) return undefined;
  const rest = addressRestBytes(type, first);
  if (rest === undefined || bytes.length < 2 + rest) return undefined;
  const end = 2 + rest;
  const port = ((bytes[end - 2] ?? 0) << 8) | (bytes[end - 1] ?? 0);
  if (type !== addressTypes.name) return { host: formatAddress(bytes.slice(1, end - 2)), port, bytes: end };
  const host = Buffer.from(bytes.subarray(2, end - 2)).toString("latin1");
  return isHostName(host) ? { host, port, bytes: end } : undefined;
}

/** An answer to a request; the address counts for UDP ASSOCIATE alone. */
export function encodeReply(reply: SocksReply, bound: Uint8Array = new Uint8Array(4), port = 0): Buffer {
  return Buffer.concat([Uint8Array.of(socksVersion, reply, 0), encodeAddress(bound, port)]);
}

/** `bytes` of a datagram (RFC 1928 §7): who it is for and what it holds; undefined when it is to be dropped. */
export function readDatagram(
  bytes: Uint8Array,
): { readonly target: SocksAddress; readonly payload: Uint8Array } | undefined {
  // Fragments are optional, and nobody sends any.
  if (bytes.length < 4 || bytes[2] !== 0) return undefined;
  const target = readAddress(bytes.subarray(3));
  return target === undefined ? undefined : { target, payload: bytes.subarray(3 + target.bytes) };
}

/** The header of a datagram's answer: the target as the program spelled it. */
export function datagramHeader(request: Uint8Array, payload: Uint8Array): Buffer {
  const header = Buffer.from(request.subarray(0, request.length - payload.length));
  header.fill(0, 0, 3);
  return header;
}

function encodeAddress(address: Uint8Array, port: number): Uint8Array {
  const type = address.length === 4 ? addressTypes.ipv4 : addressTypes.ipv6;
  return Uint8Array.of(type, ...address, port >>> 8, port & 0xff);
}

/** What a resolver may be asked; above all no spaces and no control characters. */
export function isHostName(text: string): boolean {
  return /^[\w-]([\w.-]{0,252}[\w.-])?$/.test(text);
}
