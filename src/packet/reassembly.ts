// Puts fragmented datagrams together again (RFC 791 §3.2, RFC 8200 §4.5). Only for what the laptop's own kernel cuts:
// parts come in order and do not overlap, so anything else ends that datagram. Bounded in number, bytes and age; time
// comes from the caller.
import { ipHeaderBytes, writeIpHeader } from "./ip.ts";
import type { PacketView } from "./packet-view.ts";

/** chosen: datagrams under way; the oldest makes room. */
const maxDatagrams = 64;
/** protocol: nothing longer can be told in an IP header. */
const maxTransportBytes = { 4: 65_535 - 20, 6: 65_535 } as const;
/** chosen, ms: our parts come one behind the other. */
const maxAgeMs = 5000;

interface Datagram {
  readonly parts: Uint8Array[];
  bytes: number;
  readonly startedMs: number;
}

export class Reassembly {
  readonly #datagrams = new Map<string, Datagram>();

  get size(): number {
    return this.#datagrams.size;
  }

  /** Takes one fragment (copied); answers the whole packet, without options, when it was the last. */
  add(view: PacketView, nowMs: number): Uint8Array | undefined {
    this.#forgetOld(nowMs);
    const key = fragmentKey(view);
    let datagram = this.#datagrams.get(key);
    if (datagram === undefined) {
      if (view.fragmentOffset !== 0) return undefined;
      datagram = { parts: [], bytes: 0, startedMs: nowMs };
      this.#datagrams.set(key, datagram);
    }
    const length = view.end - view.transportOffset;
    const fits = view.fragmentOffset === datagram.bytes && datagram.bytes + length <= maxTransportBytes[view.version];
    if (!fits || (view.moreFragments && (length === 0 || length % 8 !== 0))) {
      this.#datagrams.delete(key);
      return undefined;
    }
    datagram.parts.push(view.bytes.slice(view.transportOffset, view.end));
    datagram.bytes += length;
    if (view.moreFragments) return undefined;
    this.#datagrams.delete(key);
    return assemble(view, datagram);
  }

  #forgetOld(nowMs: number): void {
    for (const [key, datagram] of this.#datagrams) {
      // In order of arrival: the first that is young enough ends the search.
      if (nowMs - datagram.startedMs < maxAgeMs && this.#datagrams.size < maxDatagrams) return;
      this.#datagrams.delete(key);
    }
  }
}

function assemble(view: PacketView, datagram: Datagram): Uint8Array {
  const { version, protocol } = view;
  const header = ipHeaderBytes(version);
  const packet = new Uint8Array(header + datagram.bytes);
  writeIpHeader(packet, {
    version,
    protocol,
    source: view.source(),
    destination: view.destination(),
    transportBytes: datagram.bytes,
  });
  let offset = header;
  for (const part of datagram.parts) {
    packet.set(part, offset);
    offset += part.length;
  }
  return packet;
}

function fragmentKey(view: PacketView): string {
  const addresses = view.bytes.subarray(view.sourceOffset, view.sourceOffset + view.addressBytes * 2);
  return `${view.fragmentId} ${view.protocol} ${addresses.join(".")}`;
}
