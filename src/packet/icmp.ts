// ICMP errors (RFC 792, RFC 4443): building one about a packet, and reading what a received one quotes.
// `IcmpErrorReason` is the meaning; types and codes of the two versions stay in this file.
import { createPacket, icmpChecksum, writeUint16 } from "./ip.ts";
import type { PacketView } from "./packet-view.ts";
import { protocols } from "./packet-view.ts";

export type IcmpErrorReason = "host" | "port" | "protocol" | "prohibited" | "tooBig";

const unreachableType = { 4: 3, 6: 1 } as const;
/** Type and code. */
const errorKinds = {
  4: { host: [3, 1], port: [3, 3], protocol: [3, 2], prohibited: [3, 13], tooBig: [3, 4] },
  6: { host: [1, 3], port: [1, 4], protocol: [4, 1], prohibited: [1, 1], tooBig: [2, 0] },
} as const;
const icmpHeaderBytes = 8;
/** protocol: the longest packet that a sender may be told to try. */
const largestMtu = 65_535;
/** protocol: an ICMPv6 error fits the minimum MTU (RFC 4443 §2.4 c); IPv4 hosts accept 576 bytes (RFC 1812 §4.3.2.3). */
const maxErrorBytes = { 4: 576, 6: 1280 } as const;

/** The error that tells the packet's sender why it could not be delivered; its source is the packet's destination. */
export function buildIcmpError(view: PacketView, reason: IcmpErrorReason): Uint8Array {
  const { version } = view;
  const protocol = version === 4 ? protocols.icmp : protocols.icmpv6;
  const headerBytes = version === 4 ? 20 : 40;
  const quotedBytes = Math.min(view.end, maxErrorBytes[version] - headerBytes - icmpHeaderBytes);
  const { packet, transportOffset } = createPacket({
    version,
    protocol,
    source: view.destination(),
    destination: view.source(),
    transportBytes: icmpHeaderBytes + quotedBytes,
  });
  const [type, code] = errorKinds[version][reason];
  packet[transportOffset] = type;
  packet[transportOffset + 1] = code;
  if (reason === "tooBig") writeUint16(packet, transportOffset + 6, largestMtu);
  if (reason === "protocol" && version === 6) writeUint16(packet, transportOffset + 6, view.protocolOffset);
  packet.set(view.bytes.subarray(0, quotedBytes), transportOffset + icmpHeaderBytes);
  writeUint16(packet, transportOffset + 2, icmpChecksum(packet, transportOffset));
  return packet;
}

/** The quoted packet of a loaded "destination unreachable", or undefined when the packet is something else. */
export function quotedPacket(view: PacketView): Uint8Array | undefined {
  if (!isIcmp(view) || view.bytes[view.transportOffset] !== unreachableType[view.version]) return undefined;
  return view.bytes.subarray(view.payloadOffset, view.end);
}

/** What an ICMP error quotes of a UDP packet: enough to find its flow. The quote may be cut short. */
export interface QuotedUdp {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** Reads a quote by itself, because load() rightly refuses a packet shorter than its length field. */
export function readQuotedUdp(quote: Uint8Array): QuotedUdp | undefined {
  const layout = quoteLayout(quote);
  if (layout === undefined || quote.length < layout.ports + 4) return undefined;
  const { addresses, size, ports } = layout;
  const word = (offset: number): number => ((quote[offset] as number) << 8) | (quote[offset + 1] as number);
  return {
    source: quote.slice(addresses, addresses + size),
    destination: quote.slice(addresses + size, addresses + size * 2),
    sourcePort: word(ports),
    destinationPort: word(ports + 2),
  };
}

/** Where addresses and ports lie in a quoted UDP packet without extension headers. */
function quoteLayout(quote: Uint8Array): { addresses: number; size: number; ports: number } | undefined {
  const first = quote[0] ?? 0;
  if (first >>> 4 === 4 && (first & 0x0f) >= 5 && quote[9] === protocols.udp) {
    return { addresses: 12, size: 4, ports: (first & 0x0f) * 4 };
  }
  return first >>> 4 === 6 && quote[6] === protocols.udp ? { addresses: 8, size: 16, ports: 40 } : undefined;
}

export function isIcmp(view: PacketView): boolean {
  return view.fragment === "none" && view.protocol === (view.version === 4 ? protocols.icmp : protocols.icmpv6);
}
