// TCP header fields (RFC 9293 §3.1) of a loaded view, and the resets that refuse a segment or end a connection.
import { createPacket, transportChecksum } from "./ip.ts";
import type { PacketView } from "./packet-view.ts";
import { protocols } from "./packet-view.ts";

/** Of a segment. */
export interface Ends {
  /** 4 or 16 bytes, both alike. */
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
}

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

export function acknowledgementOf(view: PacketView): number {
  return readUint32(view.bytes, view.transportOffset + 8);
}

/** True for a connection's first segment: SYN without ACK, RST or FIN. */
export function isFirstSyn(view: PacketView): boolean {
  const { syn, ack, rst, fin } = tcpFlags;
  return (flagsOf(view) & (syn | ack | rst | fin)) === syn;
}

/** One behind the segment's last sequence number: SYN and FIN count as a byte each (RFC 9293 §3.4). */
export function sequenceEndOf(view: PacketView): number {
  const flags = flagsOf(view);
  const marks = ((flags & tcpFlags.syn) === 0 ? 0 : 1) + ((flags & tcpFlags.fin) === 0 ? 0 : 1);
  return (sequenceOf(view) + view.end - view.payloadOffset + marks) >>> 0;
}

/** The RST that answers this segment (RFC 9293 §3.10.7.1), from its destination to its source. Never call it for a RST. */
export function buildReset(view: PacketView): Uint8Array {
  const acknowledges = (flagsOf(view) & tcpFlags.ack) !== 0;
  const { sourcePort, destinationPort } = view;
  return createReset(
    {
      source: view.destination(),
      destination: view.source(),
      sourcePort: destinationPort,
      destinationPort: sourcePort,
    },
    acknowledges ? { sequence: acknowledgementOf(view) } : { sequence: 0, acknowledgement: sequenceEndOf(view) },
  );
}

/** A RST from `source` to `destination`; with an acknowledgement it ends a connection that is only asked for, too. */
export function createReset(
  ends: Ends,
  { sequence, acknowledgement }: { readonly sequence: number; readonly acknowledgement?: number },
): Uint8Array {
  const { packet, transportOffset } = createPacket({
    version: ends.source.length === 4 ? 4 : 6,
    protocol: protocols.tcp,
    source: ends.source,
    destination: ends.destination,
    transportBytes: headerBytes,
  });
  const data = new DataView(packet.buffer);
  data.setUint16(transportOffset, ends.sourcePort);
  data.setUint16(transportOffset + 2, ends.destinationPort);
  data.setUint32(transportOffset + 4, sequence);
  data.setUint32(transportOffset + 8, acknowledgement ?? 0);
  data.setUint8(transportOffset + 12, (headerBytes / 4) << 4);
  data.setUint8(transportOffset + 13, acknowledgement === undefined ? tcpFlags.rst : tcpFlags.rst | tcpFlags.ack);
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
