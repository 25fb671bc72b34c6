// ICMP echo (RFC 792, RFC 4443 §4): reading a request, building a request or a reply.
import { isIcmp } from "./icmp.ts";
import { createPacket, icmpChecksum, writeUint16 } from "./ip.ts";
import { protocols, type PacketView } from "./packet-view.ts";

const types = { request: { 4: 8, 6: 128 }, reply: { 4: 0, 6: 129 } } as const;
const headerBytes = 8;

export interface Echo {
  readonly version: 4 | 6;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** The program's, which tells its answers from others'. */
  readonly identifier: number;
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** Whether a loaded ICMP packet asks for an echo. */
export function isEchoRequest(view: PacketView): boolean {
  return isIcmp(view) && view.bytes[view.transportOffset] === types.request[view.version];
}

/** What a request says; the payload lies in the packet. */
export function readEcho(view: PacketView): Echo {
  const { version, transportOffset } = view;
  return {
    version,
    source: view.source(),
    destination: view.destination(),
    identifier: view.word(transportOffset + 4),
    sequence: view.word(transportOffset + 6),
    payload: view.bytes.subarray(view.payloadOffset, view.end),
  };
}

export function buildEcho(kind: keyof typeof types, echo: Echo): Uint8Array {
  const { version, source, destination, payload } = echo;
  const protocol = version === 4 ? protocols.icmp : protocols.icmpv6;
  const transportBytes = headerBytes + payload.length;
  const { packet, transportOffset } = createPacket({ version, protocol, source, destination, transportBytes });
  packet[transportOffset] = types[kind][version];
  writeUint16(packet, transportOffset + 4, echo.identifier);
  writeUint16(packet, transportOffset + 6, echo.sequence);
  packet.set(payload, transportOffset + headerBytes);
  writeUint16(packet, transportOffset + 2, icmpChecksum(packet, transportOffset));
  return packet;
}
