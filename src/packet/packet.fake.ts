// Packets as a laptop's kernel would send them, for tests. Built independently of the parsing under test.
import { createPacket, transportChecksum, writeUint16 } from "./ip.ts";
import { protocols } from "./packet-view.ts";
import { parseAddress } from "./address.ts";
import { udpScratchBytes, writeUdpPacket } from "./udp.ts";

export interface TestEnds {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
}

export interface TestSegment extends TestEnds {
  readonly flags: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  readonly payload?: Uint8Array;
}

export function tcpPacket(segment: TestSegment): Uint8Array {
  const source = address(segment.source);
  const payload = segment.payload ?? new Uint8Array(0);
  const { packet, transportOffset } = createPacket({
    version: source.length === 4 ? 4 : 6,
    protocol: protocols.tcp,
    source,
    destination: address(segment.destination),
    transportBytes: 20 + payload.length,
  });
  const data = new DataView(packet.buffer);
  data.setUint16(transportOffset, segment.sourcePort);
  data.setUint16(transportOffset + 2, segment.destinationPort);
  data.setUint32(transportOffset + 4, segment.sequence ?? 0);
  data.setUint32(transportOffset + 8, segment.acknowledgement ?? 0);
  data.setUint8(transportOffset + 12, 0x50);
  data.setUint8(transportOffset + 13, segment.flags);
  data.setUint16(transportOffset + 14, 65_535);
  packet.set(payload, transportOffset + 20);
  writeUint16(packet, transportOffset + 16, transportChecksum(packet, transportOffset, protocols.tcp));
  return packet;
}

export function udpPacket(ends: TestEnds, payload: Uint8Array): Uint8Array {
  const source = address(ends.source);
  const scratch = new Uint8Array(udpScratchBytes);
  const length = writeUdpPacket(
    scratch,
    {
      version: source.length === 4 ? 4 : 6,
      source,
      destination: address(ends.destination),
      sourcePort: ends.sourcePort,
      destinationPort: ends.destinationPort,
    },
    payload,
  );
  return scratch.slice(0, length);
}

/** True when the packet's IP header (IPv4) and transport checksums hold. */
export function checksumsHold(packet: Uint8Array): boolean {
  const copy = packet.slice();
  const version = (copy[0] as number) >>> 4;
  const transportOffset = version === 4 ? ((copy[0] as number) & 0x0f) * 4 : 40;
  const protocol = copy[version === 4 ? 9 : 6] as number;
  // Summed with its own checksum in place, a sound part gives zero.
  if (version === 4 && onesSum(copy, 0, transportOffset) !== 0xffff) return false;
  if (protocol === protocols.icmp) return onesSum(copy, transportOffset, copy.length) === 0xffff;
  return transportChecksum(copy, transportOffset, protocol) === 0;
}

function onesSum(bytes: Uint8Array, start: number, end: number): number {
  let sum = 0;
  for (let offset = start; offset < end; offset += 2) {
    sum += ((bytes[offset] ?? 0) << 8) | (offset + 1 < end ? (bytes[offset + 1] ?? 0) : 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

function address(text: string): Uint8Array {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`${text} is not an address`);
  return parsed;
}

/** The packet as a kernel cuts it for an MTU. One fragment when it fits. */
export function fragmentsOf(packet: Uint8Array, mtu: number, id: number): Uint8Array[] {
  const isV4 = (packet[0] as number) >>> 4 === 4;
  const header = packet.subarray(0, isV4 ? 20 : 40);
  const headerBytes = isV4 ? 20 : 48;
  const transport = packet.subarray(header.length);
  const step = Math.max(8, Math.floor((mtu - headerBytes) / 8) * 8);
  const fragments: Uint8Array[] = [];
  for (let offset = 0; offset < transport.length; offset += step) {
    const part = transport.subarray(offset, offset + step);
    const more = offset + step < transport.length;
    const fragment = new Uint8Array(headerBytes + part.length);
    fragment.set(header);
    fragment.set(part, headerBytes);
    const data = new DataView(fragment.buffer);
    if (isV4) {
      data.setUint16(2, fragment.length);
      data.setUint16(4, id);
      data.setUint16(6, (more ? 0x2000 : 0) | (offset / 8));
    } else {
      data.setUint16(4, fragment.length - 40);
      data.setUint8(6, 44);
      data.setUint8(40, packet[6] as number);
      data.setUint16(42, offset | (more ? 1 : 0));
      data.setUint32(44, id);
    }
    fragments.push(fragment);
  }
  return fragments;
}
