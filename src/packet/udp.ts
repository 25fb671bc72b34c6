// UDP packets of our own (RFC 768): a datagram from the cluster back to the program that asked.
import { ipHeaderBytes, transportChecksum, writeIpHeader, writeUint16 } from "./ip.ts";
import { protocols } from "./packet-view.ts";

const headerBytes = 8;

export interface UdpEnds {
  readonly version: 4 | 6;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

/** Largest payload of one unfragmented packet. */
export function maxUdpPayloadBytes(version: 4 | 6): number {
  return version === 4 ? 65_535 - 20 - headerBytes : 65_535 - headerBytes;
}

/** A buffer of this size takes any packet that writeUdpPacket() makes. */
export const udpScratchBytes = 40 + 65_535;

/** Writes the packet at the start of `target` and answers its length. The payload must be ≤ maxUdpPayloadBytes. */
export function writeUdpPacket(target: Uint8Array, ends: UdpEnds, payload: Uint8Array): number {
  const transportBytes = headerBytes + payload.length;
  const start = ipHeaderBytes(ends.version);
  const end = start + transportBytes;
  const { version, source, destination } = ends;
  writeIpHeader(target, { version, protocol: protocols.udp, source, destination, transportBytes });
  writeUint16(target, start, ends.sourcePort);
  writeUint16(target, start + 2, ends.destinationPort);
  writeUint16(target, start + 4, transportBytes);
  writeUint16(target, start + 6, 0);
  target.set(payload, start + headerBytes);
  // A computed zero is sent as all ones: zero means "no checksum" in IPv4 and is forbidden in IPv6.
  writeUint16(target, start + 6, transportChecksum(target, start, protocols.udp, end) || 0xffff);
  return end;
}
