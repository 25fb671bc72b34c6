// TCP header fields (RFC 9293 §3.1) of a loaded view, and the reset that refuses a segment.
import { createPacket, transportChecksum } from "./ip.ts";
import type { PacketView } from "./packet-view.ts";
import { protocols } from "./packet-view.ts";

export const tcpFlags = { fin: 0x01, syn: 0x02, rst: 0x04, psh: 0x08, ack: 0x10 } as const;
const headerBytes = 20;

/** Offset of the checksum field behind the start of the transport header. */
export const tcpChecksumOffset = 16;

export function flagsOf(view: PacketView): number {
  return view.bytes[view.transportOffset + 13] as number;
}

export function sequenceOf(view: PacketView): number {
  return readUint32(view.bytes, view.transportOffset + 4);
}

function acknowledgementOf(view: PacketView): number {
  return readUint32(view.bytes, view.transportOffset + 8);
}

/** True for a connection's first segment: SYN without ACK, RST or FIN. */
export function isFirstSyn(view: PacketView): boolean {
  const { syn, ack, rst, fin } = tcpFlags;
  return (flagsOf(view) & (syn | ack | rst | fin)) === syn;
}

/** The RST that answers this segment (RFC 9293 §3.10.7.1), from its destination to its source. Never call it for a RST. */
export function buildReset(view: PacketView): Uint8Array {
  const flags = flagsOf(view);
  const acknowledges = (flags & tcpFlags.ack) !== 0;
  const consumed =
    view.end - view.payloadOffset + ((flags & tcpFlags.syn) === 0 ? 0 : 1) + ((flags & tcpFlags.fin) === 0 ? 0 : 1);
  const sequence = acknowledges ? acknowledgementOf(view) : 0;
  const acknowledgement = acknowledges ? 0 : (sequenceOf(view) + consumed) >>> 0;
  const { packet, transportOffset } = createPacket({
    version: view.version,
    protocol: protocols.tcp,
    source: view.destination(),
    destination: view.source(),
    transportBytes: headerBytes,
  });
  const data = new DataView(packet.buffer);
  data.setUint16(transportOffset, view.destinationPort);
  data.setUint16(transportOffset + 2, view.sourcePort);
  data.setUint32(transportOffset + 4, sequence);
  data.setUint32(transportOffset + 8, acknowledgement);
  data.setUint8(transportOffset + 12, (headerBytes / 4) << 4);
  data.setUint8(transportOffset + 13, acknowledges ? tcpFlags.rst : tcpFlags.rst | tcpFlags.ack);
  data.setUint16(transportOffset + tcpChecksumOffset, transportChecksum(packet, transportOffset, protocols.tcp));
  return packet;
}

function readUint32(bytes: Uint8Array, offset: number): number {
  return (
    (((bytes[offset] as number) << 24) |
      ((bytes[offset + 1] as number) << 16) |
      ((bytes[offset + 2] as number) << 8) |
      (bytes[offset + 3] as number)) >>>
    0
  );
}
