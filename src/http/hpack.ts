// Header blocks of HTTP/2 as fields (RFC 7541): the decoder of one direction of one connection, for who reads along.
import { Unclear } from "./head.ts";
import type { HeaderField } from "./head.ts";
import { decodeHuffman } from "./hpack-huffman.ts";

/** Appendix A, from index 1. */
const staticTable: readonly HeaderField[] = [
  ":authority",
  ":method GET",
  ":method POST",
  ":path /",
  ":path /index.html",
  ":scheme http",
  ":scheme https",
  ":status 200",
  ":status 204",
  ":status 206",
  ":status 304",
  ":status 400",
  ":status 404",
  ":status 500",
  "accept-charset",
  "accept-encoding gzip, deflate",
  ..."accept-language accept-ranges accept access-control-allow-origin age allow authorization cache-control".split(
    " ",
  ),
  ..."content-disposition content-encoding content-language content-length content-location content-range".split(" "),
  ..."content-type cookie date etag expect expires from host if-match if-modified-since if-none-match".split(" "),
  ..."if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate".split(" "),
  ..."proxy-authorization range referer refresh retry-after server set-cookie strict-transport-security".split(" "),
  ..."transfer-encoding user-agent vary via www-authenticate".split(" "),
].map((line) => {
  const space = line.indexOf(" ");
  return space < 0 ? { name: line, value: "" } : { name: line.slice(0, space), value: line.slice(space + 1) };
});

/** RFC 7541 §4.1. */
const entryOverhead = 32;
/** RFC 9113 §6.5.2, until SETTINGS say otherwise. */
const initialTableBytes = 4096;
/** chosen: what we hold for an end that allows its sender more; more is not understood. */
const largestTableBytes = 1024 * 1024;
/** chosen: the fields of one block, as text. A small block can name a large field often. */
const maxFieldsBytes = 256 * 1024;

export class HpackDecoder {
  /** Newest first. */
  readonly #table: HeaderField[] = [];
  #tableBytes = 0;
  #maxBytes = initialTableBytes;
  #allowedBytes = initialTableBytes;

  /** What the receiver's SETTINGS_HEADER_TABLE_SIZE says. */
  allow(bytes: number): void {
    this.#allowedBytes = Math.min(bytes, largestTableBytes);
  }

  /** After `Unclear` the state is lost: the direction cannot be read any more. */
  decode(block: Buffer): HeaderField[] | Unclear {
    const fields: HeaderField[] = [];
    const reader = new BlockReader(block);
    let bytes = 0;
    while (!reader.atEnd) {
      const field = this.#next(reader);
      if (field === undefined) continue;
      if (field instanceof Unclear) return field;
      bytes += field.name.length + field.value.length + entryOverhead;
      if (bytes > maxFieldsBytes)
        return new Unclear(`the fields of a header block are more than ${maxFieldsBytes} bytes`);
      fields.push(field);
    }
    return fields;
  }

  /** A field, or undefined for a change of the table's size. */
  #next(reader: BlockReader): HeaderField | Unclear | undefined {
    const first = reader.peek();
    if (first >= 128) return this.#at(reader.integer(7)) ?? new Unclear("a header field that is in no table");
    if (first >= 64) return this.#literal(reader, 6);
    if (first >= 32) return this.#resize(reader.integer(5));
    return this.#literal(reader, 4);
  }

  #resize(bytes: number | undefined): Unclear | undefined {
    if (bytes === undefined || bytes > this.#allowedBytes) return new Unclear("a header table that is too large");
    this.#maxBytes = bytes;
    this.#evict(0);
    return undefined;
  }

  #literal(reader: BlockReader, prefixBits: 4 | 6): HeaderField | Unclear {
    const index = reader.integer(prefixBits);
    const name = index === 0 ? reader.string() : this.#at(index)?.name;
    const value = reader.string();
    if (index === undefined || name === undefined || value === undefined)
      return new Unclear("a malformed header block");
    const field = { name, value };
    if (prefixBits === 6) this.#add(field);
    return field;
  }

  #at(index: number | undefined): HeaderField | undefined {
    if (index === undefined || index === 0) return undefined;
    return index <= staticTable.length ? staticTable[index - 1] : this.#table[index - 1 - staticTable.length];
  }

  #add(field: HeaderField): void {
    const bytes = field.name.length + field.value.length + entryOverhead;
    this.#evict(bytes);
    if (bytes > this.#maxBytes) return;
    this.#table.unshift(field);
    this.#tableBytes += bytes;
  }

  #evict(forBytes: number): void {
    while (this.#tableBytes + forBytes > this.#maxBytes) {
      const oldest = this.#table.pop();
      if (oldest === undefined) return;
      this.#tableBytes -= oldest.name.length + oldest.value.length + entryOverhead;
    }
  }
}

/** Undefined is what cannot be read; the block then ends. */
class BlockReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  peek(): number {
    return this.#bytes[this.#at] ?? 0;
  }

  /** RFC 7541 §5.1. */
  integer(prefixBits: number): number | undefined {
    const largest = 2 ** prefixBits - 1;
    let value = this.#byte() & largest;
    if (value < largest) return value;
    for (let factor = 1; factor <= 2 ** 28; factor *= 128) {
      if (this.atEnd) return undefined;
      const byte = this.#byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
    return undefined;
  }

  /** RFC 7541 §5.2. */
  string(): string | undefined {
    if (this.atEnd) return undefined;
    const isHuffman = this.peek() >= 128;
    const length = this.integer(7);
    if (length === undefined || length > this.#bytes.length - this.#at) return undefined;
    const bytes = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return (isHuffman ? decodeHuffman(bytes) : bytes)?.toString("latin1");
  }

  #byte(): number {
    const byte = this.peek();
    this.#at += 1;
    return byte;
  }
}
