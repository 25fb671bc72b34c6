// SPDY/3.1 as far as a port-forward needs it: two streams, their opening, their bytes and their ends, as bytes in and
// out. Servers of Kubernetes keep no flow-control windows in it, and read headers that are compressed without loss of
// anything but size: so they are sent as stored blocks here, and those of answers are not read.
//
//   control: | 1 | version 3 | type 16 | flags 8 | length 24 | …      data: | 0 | stream id 31 | flags 8 | length 24 | …
import { AppError } from "#base/error.ts";

export const spdyHeaderBytes = 8;
/** protocol: longest frame; longer control frames than the second are never said by an honest server. */
const maxControlBytes = 64 * 1024;
const version = 3;
const types = { synStream: 1, synReply: 2, reset: 3, ping: 6, goaway: 7 } as const;
const finFlag = 1;

/** What comes from the far end. Bytes are views of the chunk that was pushed, in pieces of any size. */
export interface SpdyEvents {
  readonly onReply: (streamId: number) => void;
  readonly onData: (streamId: number, piece: Buffer) => void;
  readonly onEnd: (streamId: number) => void;
  readonly onReset: (streamId: number) => void;
  /** To be sent back as it is. */
  readonly onPing: (frame: Buffer) => void;
}

/** Takes any split of the input. Throws `protocol` at what is no SPDY/3.1. */
export class SpdyReader {
  readonly #events: SpdyEvents;
  #head = Buffer.alloc(0);
  /** Of the data frame that is being read. */
  #streamId = 0;
  #leftBytes = 0;
  #isLast = false;

  constructor(events: SpdyEvents) {
    this.#events = events;
  }

  push(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) rest = this.#leftBytes > 0 ? this.#takeData(rest) : this.#takeFrame(rest);
  }

  #takeData(bytes: Buffer): Buffer {
    const count = Math.min(bytes.length, this.#leftBytes);
    this.#leftBytes -= count;
    this.#events.onData(this.#streamId, bytes.subarray(0, count));
    if (this.#leftBytes === 0) this.#endData();
    return bytes.subarray(count);
  }

  #endData(): void {
    if (this.#isLast) this.#events.onEnd(this.#streamId);
  }

  /** A frame's header, with a control frame's payload behind it; what is incomplete waits for the next chunk. */
  #takeFrame(bytes: Buffer): Buffer {
    const whole = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    this.#head = Buffer.alloc(0);
    if (whole.length < spdyHeaderBytes) return this.#keep(whole);
    const first = whole.readUInt32BE(0);
    const lengthBytes = whole.readUIntBE(5, 3);
    if (first < 0x8000_0000) {
      this.#streamId = first;
      this.#leftBytes = lengthBytes;
      this.#isLast = ((whole[4] ?? 0) & finFlag) !== 0;
      if (lengthBytes === 0) this.#endData();
      return whole.subarray(spdyHeaderBytes);
    }
    if ((first >>> 16) % 0x8000 !== version || lengthBytes > maxControlBytes) {
      throw new AppError("protocol", "the port-forward's server says what is not SPDY/3.1");
    }
    const end = spdyHeaderBytes + lengthBytes;
    if (whole.length < end) return this.#keep(whole);
    this.#onControl(first & 0xffff, whole.subarray(0, end));
    return whole.subarray(end);
  }

  #keep(bytes: Buffer): Buffer {
    this.#head = Buffer.from(bytes);
    return bytes.subarray(bytes.length);
  }

  #onControl(type: number, frame: Buffer): void {
    if (type === types.ping) this.#events.onPing(Buffer.from(frame));
    if (type !== types.synReply && type !== types.reset) return;
    if (frame.length < spdyHeaderBytes + 4) throw new AppError("protocol", "a SPDY frame names no stream");
    const streamId = frame.readUInt32BE(spdyHeaderBytes) % 0x8000_0000;
    if (type === types.reset) this.#events.onReset(streamId);
    else {
      this.#events.onReply(streamId);
      if (((frame[4] ?? 0) & finFlag) !== 0) this.#events.onEnd(streamId);
    }
  }
}

export function encodeDataHeader(target: Buffer, streamId: number, lengthBytes: number): void {
  target.writeUInt32BE(streamId, 0);
  target[4] = 0;
  target.writeUIntBE(lengthBytes, 5, 3);
}

/** Neither end needs what the other still has to say on it (CANCEL). */
export function encodeReset(streamId: number): Buffer {
  const frame = Buffer.alloc(spdyHeaderBytes + 8);
  frame.writeUInt16BE(0x8000 + version, 0);
  frame.writeUInt16BE(types.reset, 2);
  frame.writeUIntBE(8, 5, 3);
  frame.writeUInt32BE(streamId, spdyHeaderBytes);
  frame.writeUInt32BE(5, spdyHeaderBytes + 4);
  return frame;
}

/** The openings of one connection, in the order they are sent: their headers are one compressed stream. */
export function encodeOpenings(streams: readonly { readonly id: number; readonly headers: Headers }[]): Buffer {
  return Buffer.concat(streams.map(({ id, headers }, index) => encodeOpening(id, headers, index === 0)));
}

type Headers = Readonly<Record<string, string>>;

function encodeOpening(id: number, headers: Headers, isFirst: boolean): Buffer {
  const block = storedBlock(encodeHeaders(headers), isFirst);
  const frame = Buffer.alloc(spdyHeaderBytes + 10);
  frame.writeUInt16BE(0x8000 + version, 0);
  frame.writeUInt16BE(types.synStream, 2);
  frame.writeUIntBE(frame.length - spdyHeaderBytes + block.length, 5, 3);
  frame.writeUInt32BE(id, spdyHeaderBytes);
  return Buffer.concat([frame, block]);
}

function encodeHeaders(headers: Headers): Buffer {
  const entries = Object.entries(headers);
  const words = entries.flatMap(([name, value]) => [counted(name.toLowerCase()), counted(value)]);
  return Buffer.concat([uint32(entries.length), ...words]);
}

const counted = (text: string): Buffer => Buffer.concat([uint32(Buffer.byteLength(text)), Buffer.from(text)]);

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** RFC 1950 and 1951: the stream's head once, then a stored block, and an empty one that has readers hand it on. */
function storedBlock(bytes: Buffer, isFirst: boolean): Buffer {
  const head = Buffer.from([0, 0, 0, 0, 0]);
  head.writeUInt16LE(bytes.length, 1);
  head.writeUInt16LE(~bytes.length & 0xffff, 3);
  return Buffer.concat([Buffer.from(isFirst ? [0x78, 0x01] : []), head, bytes, Buffer.from([0, 0, 0, 0xff, 0xff])]);
}
