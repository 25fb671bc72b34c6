// IP headers for packets of our own (RFC 791 §3.1, RFC 8200 §3): no options, no fragments, hop limit 64.
import { finishSum, sumPseudoHeader, sumWords } from "./checksum.ts";
import { protocols } from "./packet-view.ts";

const hopLimit = 64;
const doNotFragment = 0x4000;

export interface IpHeader {
  readonly version: 4 | 6;
  readonly protocol: number;
  /** 4 or 16 bytes, as the version says. */
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** Transport header and payload together. */
  readonly transportBytes: number;
}

export function ipHeaderBytes(version: 4 | 6): number {
  return version === 4 ? 20 : 40;
}

/** A new packet of exactly the needed size with its IP header written and the transport part zero. */
export function createPacket(header: IpHeader): {
  readonly packet: Uint8Array<ArrayBuffer>;
  readonly transportOffset: number;
} {
  const transportOffset = ipHeaderBytes(header.version);
  const packet = new Uint8Array(transportOffset + header.transportBytes);
  writeIpHeader(packet, header);
  return { packet, transportOffset };
}

/** Writes the header at the start of `target`, which must have room for it. */
export function writeIpHeader(target: Uint8Array, header: IpHeader): void {
  target.fill(0, 0, ipHeaderBytes(header.version));
  if (header.version === 4) {
    target[0] = 0x45;
    writeUint16(target, 2, 20 + header.transportBytes);
    writeUint16(target, 6, doNotFragment);
    target[8] = hopLimit;
    target[9] = header.protocol;
    target.set(header.source, 12);
    target.set(header.destination, 16);
    writeUint16(target, 10, finishSum(sumWords(target, 0, 20)));
    return;
  }
  target[0] = 0x60;
  writeUint16(target, 4, header.transportBytes);
  target[6] = header.protocol;
  target[7] = hopLimit;
  target.set(header.source, 8);
  target.set(header.destination, 24);
}

/** The checksum of packet[transportOffset, end) with its pseudo header; its own field must be zero meanwhile. */
export function transportChecksum(
  packet: Uint8Array,
  transportOffset: number,
  protocol: number,
  end = packet.length,
): number {
  const version = (packet[0] as number) >>> 4;
  const byteLength = end - transportOffset;
  const pseudo = sumPseudoHeader(packet, version === 4 ? 12 : 8, version === 4 ? 4 : 16, { protocol, byteLength });
  return finishSum(sumWords(packet, transportOffset, end, pseudo));
}

/** Only ICMPv6 sums a pseudo header (RFC 4443 §2.3). */
export function icmpChecksum(packet: Uint8Array, icmpOffset: number): number {
  const version = (packet[0] as number) >>> 4;
  if (version === 4) return finishSum(sumWords(packet, icmpOffset, packet.length));
  return transportChecksum(packet, icmpOffset, protocols.icmpv6);
}

export function writeUint16(target: Uint8Array, offset: number, value: number): void {
  target[offset] = value >>> 8;
  target[offset + 1] = value & 0xff;
}
