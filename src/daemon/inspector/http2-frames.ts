// The frames of one direction of a connection of HTTP/2 (RFC 9113 §4, §6), as far as messages are concerned.
import { HpackDecoder } from "#http/hpack.ts";
import { Unclear } from "#http/head.ts";
import type { HeaderField } from "#http/head.ts";

export interface FrameEvents {
  headers(streamId: number, fields: readonly HeaderField[], isLast: boolean): void;
  data(streamId: number, bytes: Buffer, isLast: boolean): void;
  reset(streamId: number): void;
  /** What this sender allows the other direction's header table. */
  tableSize(bytes: number): void;
}

const frameHeaderBytes = 9;
const type = { data: 0, headers: 1, reset: 3, settings: 4, pushPromise: 5, continuation: 9 } as const;
const flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;
const headerTableSize = 1;
/** chosen: as much as a decoder would take. */
const maxBlockBytes = 256 * 1024;
/** chosen: a frame is held until it is whole; what servers take as a rule is 16 KiB. */
const maxDataBytes = 1024 * 1024;

interface FrameHeader {
  readonly length: number;
  readonly type: number;
  readonly flags: number;
  readonly streamId: number;
}

export class FrameReader {
  readonly #events: FrameEvents;
  readonly #decoder = new HpackDecoder();
  #held: Buffer = Buffer.alloc(0);
  #skip: number;
  #isOver = false;
  /** A header block that CONTINUATION frames go on with. */
  #block: { readonly streamId: number; readonly isLast: boolean; pieces: Buffer[]; bytes: number } | undefined;

  /** `prefaceBytes` come before the first frame. */
  constructor(events: FrameEvents, prefaceBytes: number) {
    this.#events = events;
    this.#skip = prefaceBytes;
  }

  /** Its bytes could not be read; nothing more is. */
  get isOver(): boolean {
    return this.#isOver;
  }

  allowTable(bytes: number): void {
    this.#decoder.allow(bytes);
  }

  read(chunk: Buffer): void {
    if (this.#isOver) return;
    let bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    for (;;) {
      const skipped = Math.min(this.#skip, bytes.length);
      this.#skip -= skipped;
      bytes = bytes.subarray(skipped);
      if (this.#isOver || bytes.length < frameHeaderBytes) break;
      const header = parseHeader(bytes);
      if (!needsPayload(header)) {
        bytes = bytes.subarray(frameHeaderBytes);
        this.#skip = header.length;
      } else if (header.length > (header.type === type.data ? maxDataBytes : maxBlockBytes)) {
        this.#isOver = true;
      } else if (bytes.length < frameHeaderBytes + header.length) {
        break;
      } else {
        const payload = bytes.subarray(frameHeaderBytes, frameHeaderBytes + header.length);
        bytes = bytes.subarray(frameHeaderBytes + header.length);
        this.#frame(header, payload);
      }
    }
    this.#held = this.#isOver ? Buffer.alloc(0) : Buffer.from(bytes);
  }

  #frame(header: FrameHeader, payload: Buffer): void {
    const { streamId, flags } = header;
    const isLast = (flags & flag.endStream) !== 0;
    if (header.type === type.data) return this.#events.data(streamId, unpadded(payload, flags), isLast);
    if (header.type === type.reset) return this.#events.reset(streamId);
    if (header.type === type.settings) return this.#settings(payload, flags);
    if (header.type === type.pushPromise) {
      this.#isOver = true; // its fields, which are not read, change the table that all others are read by
      return;
    }
    if (header.type === type.headers) {
      const priorityBytes = (flags & flag.priority) === 0 ? 0 : 5;
      this.#block = { streamId, isLast, pieces: [], bytes: 0 };
      this.#addToBlock(unpadded(payload, flags).subarray(priorityBytes));
    } else {
      this.#addToBlock(payload);
    }
    if ((flags & flag.endHeaders) !== 0) this.#endBlock();
  }

  #addToBlock(piece: Buffer): void {
    if (this.#block === undefined) return;
    this.#block.bytes += piece.length;
    if (this.#block.bytes > maxBlockBytes) this.#isOver = true;
    else this.#block.pieces.push(Buffer.from(piece));
  }

  #endBlock(): void {
    const block = this.#block;
    this.#block = undefined;
    if (block === undefined || this.#isOver) return;
    const fields = this.#decoder.decode(Buffer.concat(block.pieces));
    if (fields instanceof Unclear) this.#isOver = true;
    else this.#events.headers(block.streamId, fields, block.isLast);
  }

  #settings(payload: Buffer, flags: number): void {
    if ((flags & flag.ack) !== 0) return;
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) === headerTableSize) this.#events.tableSize(payload.readUInt32BE(at + 2));
    }
  }
}

function parseHeader(bytes: Buffer): FrameHeader {
  return {
    length: bytes.readUIntBE(0, 3),
    type: bytes[3] ?? 0,
    flags: bytes[4] ?? 0,
    streamId: bytes.readUInt32BE(5) & 0x7fffffff,
  };
}

function needsPayload(header: FrameHeader): boolean {
  return Object.values<number>(type).includes(header.type);
}

function unpadded(payload: Buffer, flags: number): Buffer {
  if ((flags & flag.padded) === 0) return payload;
  return payload.subarray(1, Math.max(1, payload.length - (payload[0] ?? 0)));
}
