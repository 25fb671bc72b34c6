// A reusable view on one IP packet: load() checks every length once and leaves offsets, so that the hops read and
// rewrite in place without allocating. After load() answered undefined, every offset lies inside the packet.
// A fragment other than the first has no transport header: `fragment` says so and the ports are 0.

export const protocols = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, none: 59 } as const;

/** Why a packet was not understood; a closed set, so it can be counted. */
export type Malformed =
  | "empty"
  | "bad_version"
  | "truncated"
  | "bad_header_length"
  | "bad_total_length"
  | "too_many_extensions"
  | "bad_transport_length";

export type FragmentKind = "none" | "first" | "later";

/** chosen: extension headers walked before a packet counts as malformed. */
const maxExtensionHeaders = 8;
const extension = { hopByHop: 0, routing: 43, fragment: 44, authentication: 51, destination: 60 } as const;
const mobility = 135;
const hostIdentity = 139;
const shim6 = 140;

export class PacketView {
  bytes: Uint8Array = new Uint8Array(0);
  version: 4 | 6 = 4;
  /** 4 or 16. */
  addressBytes: 4 | 16 = 4;
  sourceOffset = 0;
  destinationOffset = 0;
  /** The transport's protocol number, behind all extension headers. */
  protocol = 0;
  /** Of the byte that names it. */
  protocolOffset = 0;
  transportOffset = 0;
  payloadOffset = 0;
  /** End of the packet; bytes behind it are padding. For UDP the end of the datagram. */
  end = 0;
  fragment: FragmentKind = "none";
  /** Fragments: the datagram's identification, the offset of this part in it, and whether more follow. */
  fragmentId = 0;
  fragmentOffset = 0;
  moreFragments = false;
  sourcePort = 0;
  destinationPort = 0;

  /** Takes the packet, without copying it. Answers what is wrong with it, or undefined. */
  load(bytes: Uint8Array): Malformed | undefined {
    this.bytes = bytes;
    this.fragment = "none";
    this.fragmentId = 0;
    this.fragmentOffset = 0;
    this.moreFragments = false;
    this.sourcePort = 0;
    this.destinationPort = 0;
    if (bytes.length === 0) return "empty";
    const version = (bytes[0] as number) >>> 4;
    if (version === 4) return this.#loadIpv4() ?? this.#loadTransport();
    if (version === 6) return this.#loadIpv6() ?? this.#loadTransport();
    return "bad_version";
  }

  /** RFC 791 §3.1. */
  #loadIpv4(): Malformed | undefined {
    const bytes = this.bytes;
    this.version = 4;
    this.addressBytes = 4;
    this.sourceOffset = 12;
    this.destinationOffset = 16;
    if (bytes.length < 20) return "truncated";
    const headerBytes = ((bytes[0] as number) & 0x0f) * 4;
    const total = this.word(2);
    if (headerBytes < 20) return "bad_header_length";
    if (total < headerBytes) return "bad_total_length";
    if (total > bytes.length) return "truncated";
    this.end = total;
    this.protocol = bytes[9] as number;
    this.protocolOffset = 9;
    this.transportOffset = headerBytes;
    this.#setFragment(this.word(4), (this.word(6) & 0x1fff) * 8, (this.word(6) & 0x2000) !== 0);
    return undefined;
  }

  /** RFC 8200 §3 and §4. */
  #loadIpv6(): Malformed | undefined {
    const bytes = this.bytes;
    this.version = 6;
    this.addressBytes = 16;
    this.sourceOffset = 8;
    this.destinationOffset = 24;
    if (bytes.length < 40) return "truncated";
    this.end = 40 + this.word(4);
    if (this.end > bytes.length) return "truncated";
    return this.#walkExtensions(bytes[6] as number, 40);
  }

  #walkExtensions(firstHeader: number, firstOffset: number): Malformed | undefined {
    let next = firstHeader;
    let offset = firstOffset;
    this.protocolOffset = 6;
    for (let count = 0; isExtension(next); count++) {
      if (count === maxExtensionHeaders) return "too_many_extensions";
      if (offset + 8 > this.end) return "truncated";
      const unit = this.bytes[offset + 1] as number;
      if (next === extension.fragment) {
        const flags = this.word(offset + 2);
        this.#setFragment(
          (this.word(offset + 4) * 0x10000 + this.word(offset + 6)) >>> 0,
          flags & 0xfff8,
          (flags & 1) !== 0,
        );
      }
      const length = extensionBytes(next, unit);
      next = this.bytes[offset] as number;
      this.protocolOffset = offset;
      offset += length;
      if (offset > this.end) return "truncated";
      // Behind the header of a later fragment comes the middle of a datagram, not another header.
      if (this.fragment === "later") break;
    }
    this.protocol = next;
    this.transportOffset = offset;
    return undefined;
  }

  #setFragment(id: number, offset: number, more: boolean): void {
    this.fragmentId = id;
    this.fragmentOffset = offset;
    this.moreFragments = more;
    if (offset > 0) this.fragment = "later";
    else this.fragment = more ? "first" : "none";
  }

  #loadTransport(): Malformed | undefined {
    const start = this.transportOffset;
    this.payloadOffset = start;
    if (this.fragment === "later") return undefined;
    switch (this.protocol) {
      case protocols.tcp:
        return this.#loadTcp(start);
      case protocols.udp:
        return this.#loadUdp(start);
      case protocols.icmp:
      case protocols.icmpv6:
        this.payloadOffset = start + 8;
        return start + 8 > this.end ? "truncated" : undefined;
      default:
        return undefined;
    }
  }

  #loadTcp(start: number): Malformed | undefined {
    if (start + 20 > this.end) return "truncated";
    const headerBytes = ((this.bytes[start + 12] as number) >>> 4) * 4;
    if (headerBytes < 20) return "bad_transport_length";
    if (start + headerBytes > this.end) return "truncated";
    this.payloadOffset = start + headerBytes;
    this.#loadPorts(start);
    return undefined;
  }

  #loadUdp(start: number): Malformed | undefined {
    if (start + 8 > this.end) return "truncated";
    const length = this.word(start + 4);
    if (length < 8) return "bad_transport_length";
    if (this.fragment === "none") {
      if (start + length > this.end) return "bad_transport_length";
      this.end = start + length;
    }
    this.payloadOffset = start + 8;
    this.#loadPorts(start);
    return undefined;
  }

  #loadPorts(start: number): void {
    this.sourcePort = this.word(start);
    this.destinationPort = this.word(start + 2);
  }

  /** The big-endian 16 bits at `offset`. */
  word(offset: number): number {
    return ((this.bytes[offset] as number) << 8) | (this.bytes[offset + 1] as number);
  }
  /** A copy of the source address. */
  source(): Uint8Array {
    return this.bytes.slice(this.sourceOffset, this.sourceOffset + this.addressBytes);
  }
  /** A copy of the destination address. */
  destination(): Uint8Array {
    return this.bytes.slice(this.destinationOffset, this.destinationOffset + this.addressBytes);
  }
}

function isExtension(header: number): boolean {
  switch (header) {
    case extension.hopByHop:
    case extension.routing:
    case extension.fragment:
    case extension.authentication:
    case extension.destination:
    case mobility:
    case hostIdentity:
    case shim6:
      return true;
    default:
      return false;
  }
}

/** Length of an extension header from its length byte: AH counts words less 2, a fragment header is fixed. */
function extensionBytes(header: number, unit: number): number {
  if (header === extension.fragment) return 8;
  return header === extension.authentication ? (unit + 2) * 4 : (unit + 1) * 8;
}
