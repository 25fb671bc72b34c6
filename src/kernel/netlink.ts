// Netlink messages as bytes (netlink(7)); pure. Everything is in the host's byte order, which on every machine Node's
// Linux builds run on is little-endian, except what nftables marks big-endian.
//
//   message    length 4 | type 2 | flags 2 | sequence 4 | port 4 | family header | attributes …   (aligned to 4)
//   attribute  length 2 | type 2 | value | pad to 4        (a nested attribute's value is attributes)
import { AppError } from "#base/error.ts";

export const nlm = {
  request: 0x01,
  ack: 0x04,
  dump: 0x300,
  replace: 0x100,
  exclusive: 0x200,
  create: 0x400,
  append: 0x800,
} as const;

export const nlmsgError = 2;
export const nlmsgDone = 3;
const nestedFlag = 0x8000;
const typeMask = 0x3fff;
const headerBytes = 16;

/** Writes messages one behind the other. Attributes belong to the message begun last. */
export class NetlinkWriter {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** A message with its family header and whatever `fill` adds. */
  message(
    head: { readonly type: number; readonly flags: number; readonly sequence: number },
    familyHeader: Uint8Array,
    fill: (writer: this) => void = () => undefined,
  ): this {
    const start = this.#length;
    this.#reserve(headerBytes);
    this.#view.setUint16(start + 4, head.type, true);
    this.#view.setUint16(start + 6, head.flags, true);
    this.#view.setUint32(start + 8, head.sequence, true);
    this.#append(familyHeader);
    fill(this);
    this.#view.setUint32(start, this.#length - start, true);
    return this;
  }

  attribute(type: number, value: Uint8Array): this {
    const start = this.#length;
    this.#reserve(4);
    this.#view.setUint16(start, 4 + value.length, true);
    this.#view.setUint16(start + 2, type, true);
    this.#append(value);
    return this;
  }

  nested(type: number, fill: (writer: this) => void): this {
    const start = this.#length;
    this.#reserve(4);
    fill(this);
    this.#view.setUint16(start, this.#length - start, true);
    this.#view.setUint16(start + 2, type | nestedFlag, true);
    return this;
  }

  u8(type: number, value: number): this {
    return this.attribute(type, Uint8Array.of(value));
  }
  u32(type: number, value: number): this {
    return this.attribute(type, u32Bytes(value, true));
  }
  /** A big-endian number, as nftables wants them all. */
  be32(type: number, value: number): this {
    return this.attribute(type, u32Bytes(value, false));
  }
  /** A string with its closing NUL. */
  text(type: number, value: string): this {
    return this.attribute(type, Buffer.from(`${value}\0`));
  }

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #append(value: Uint8Array): void {
    const start = this.#length;
    this.#reserve((value.length + 3) & ~3);
    this.#bytes.set(value, start);
  }
  /** Makes the next `count` bytes, zeroed, part of the output. */
  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = needed;
  }
}

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** Family header and attributes. */
  readonly payload: Uint8Array;
}

/** The messages of one datagram. Throws `internal` on bytes that are not netlink: the kernel does not send such. */
export function decodeMessages(bytes: Uint8Array): readonly NetlinkMessage[] {
  const view = viewOf(bytes);
  const messages: NetlinkMessage[] = [];
  for (let offset = 0; offset + headerBytes <= bytes.length;) {
    const length = view.getUint32(offset, true);
    if (length < headerBytes || offset + length > bytes.length) throw malformed("message", length);
    messages.push({
      type: view.getUint16(offset + 4, true),
      flags: view.getUint16(offset + 6, true),
      sequence: view.getUint32(offset + 8, true),
      payload: bytes.subarray(offset + headerBytes, offset + length),
    });
    offset += (length + 3) & ~3;
  }
  return messages;
}

/** Attributes from `offset` on, by type; of a repeated type the last. */
export function decodeAttributes(payload: Uint8Array, offset: number): ReadonlyMap<number, Uint8Array> {
  const view = viewOf(payload);
  const attributes = new Map<number, Uint8Array>();
  for (let at = offset; at + 4 <= payload.length;) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > payload.length) throw malformed("attribute", length);
    attributes.set(view.getUint16(at + 2, true) & typeMask, payload.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return attributes;
}

export interface Acknowledgement {
  /** 0 when the request was carried out. */
  readonly errno: number;
  /** The kernel's own words, when it gave some. */
  readonly text: string | undefined;
}

const errorTextAttribute = 1;
const ackTlvsFlag = 0x200;
const cappedFlag = 0x100;

/** The body of an NLMSG_ERROR message: errno, the request's header (or all of it), extended text. */
export function decodeAcknowledgement(message: NetlinkMessage): Acknowledgement {
  const view = viewOf(message.payload);
  if (message.payload.length < 4) throw malformed("acknowledgement", message.payload.length);
  const errno = -view.getInt32(0, true);
  if ((message.flags & ackTlvsFlag) === 0 || message.payload.length < 20) return { errno, text: undefined };
  const echoed = (message.flags & cappedFlag) === 0 ? view.getUint32(4, true) : headerBytes;
  const text = decodeAttributes(message.payload, 4 + ((echoed + 3) & ~3)).get(errorTextAttribute);
  return { errno, text: text === undefined ? undefined : decodeText(text) };
}

export function decodeText(value: Uint8Array): string {
  const end = value.indexOf(0);
  return Buffer.from(end === -1 ? value : value.subarray(0, end)).toString("utf8");
}

export function decodeU32(value: Uint8Array | undefined): number | undefined {
  return value === undefined || value.length < 4 ? undefined : viewOf(value).getUint32(0, true);
}

export function u32Bytes(value: number, littleEndian: boolean): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value >>> 0, littleEndian);
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function malformed(what: string, length: number): AppError {
  return new AppError("internal", `a netlink ${what} says it has ${length} bytes, which does not fit`);
}
