// Rewriting the ends of a TCP segment in place. All that depends on the flow is computed once (planRewrite); a packet
// then costs a few byte stores and two additions. Checksums are updated, not recomputed, so that a damaged packet
// stays damaged and is refused by the kernel.
import { applyChecksumDelta, checksumDelta } from "./checksum.ts";
import type { PacketView } from "./packet-view.ts";
import { tcpChecksumOffset, type Ends } from "./tcp.ts";

export interface Rewrite {
  /** Source and destination address, adjacent as in both IP headers. */
  readonly addresses: Uint8Array;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly headerDelta: number;
  readonly transportDelta: number;
}

export function planRewrite(before: Ends, after: Ends): Rewrite {
  return {
    addresses: joinAddresses(after),
    sourcePort: after.sourcePort,
    destinationPort: after.destinationPort,
    headerDelta: checksumDelta(joinAddresses(before), joinAddresses(after)),
    transportDelta: checksumDelta(joinEnds(before), joinEnds(after)),
  };
}

/** Changes the loaded TCP segment in place; its ends must be the plan's `before`. */
export function applyRewrite(view: PacketView, rewrite: Rewrite): void {
  const { bytes, transportOffset } = view;
  bytes.set(rewrite.addresses, view.sourceOffset);
  bytes[transportOffset] = rewrite.sourcePort >>> 8;
  bytes[transportOffset + 1] = rewrite.sourcePort & 0xff;
  bytes[transportOffset + 2] = rewrite.destinationPort >>> 8;
  bytes[transportOffset + 3] = rewrite.destinationPort & 0xff;
  if (view.version === 4) applyChecksumDelta(bytes, 10, rewrite.headerDelta);
  applyChecksumDelta(bytes, transportOffset + tcpChecksumOffset, rewrite.transportDelta);
}

function joinAddresses(ends: Ends): Uint8Array {
  const joined = new Uint8Array(ends.source.length * 2);
  joined.set(ends.source, 0);
  joined.set(ends.destination, ends.source.length);
  return joined;
}

function joinEnds(ends: Ends): Uint8Array {
  const { sourcePort, destinationPort } = ends;
  const ports = [sourcePort >>> 8, sourcePort & 0xff, destinationPort >>> 8, destinationPort & 0xff];
  return Uint8Array.of(...joinAddresses(ends), ...ports);
}
