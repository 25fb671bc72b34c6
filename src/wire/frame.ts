// Frames of a link (PROTOCOL §4): a 16-byte header and a payload, after the HELLO of both ends. The decoder takes any
// split of the input and yields whole frames.
// Invariants: a length is checked against its type's bound before anything is allocated; whatever the bytes are, only
// ProtocolError is thrown. Sequence numbers are carried here and checked by the session.
import { ProtocolError } from "#base/error.ts";
import { maxDatagramBytes, maxFramePayloadBytes, maxOpenBytes } from "./limits.ts";
import { resetCodes } from "./open.ts";

/** protocol: u32 payload length, u8 type, u8 flags, u16 reserved, u32 stream id, u32 sequence number. */
export const frameHeaderBytes = 16;

/** protocol: numbers on the wire. */
export const frameTypes = {
  open: 1,
  openOk: 2,
  reject: 3,
  data: 4,
  end: 5,
  reset: 6,
  credit: 7,
  datagram: 8,
  ack: 9,
  ping: 10,
  pong: 11,
  goaway: 12,
} as const;
export type FrameType = (typeof frameTypes)[keyof typeof frameTypes];

export interface Frame {
  readonly type: FrameType;
  /** 0 for frames of the link itself. */
  readonly streamId: number;
  /** 0 for types that are not sequenced. */
  readonly seq: number;
  readonly payload: Uint8Array;
}

interface TypeRule {
  readonly type: FrameType;
  readonly name: string;
  readonly minBytes: number;
  readonly maxBytes: number;
  /** Belongs to a stream (id is not 0) or to the link (id is 0). */
  readonly scope: "stream" | "link";
  readonly sequenced: boolean;
}

type RuleBytes = readonly [minBytes: number, maxBytes: number];

function rule(type: FrameType, name: string, bytes: RuleBytes, scope: "stream" | "link" | "beat"): TypeRule {
  const [minBytes, maxBytes] = bytes;
  return { type, name, minBytes, maxBytes, scope: scope === "stream" ? scope : "link", sequenced: scope !== "beat" };
}

const rules: readonly (TypeRule | undefined)[] = [
  undefined,
  rule(frameTypes.open, "OPEN", [2, maxOpenBytes], "stream"),
  rule(frameTypes.openOk, "OPEN_OK", [0, maxOpenBytes], "stream"),
  rule(frameTypes.reject, "REJECT", [2, maxOpenBytes], "stream"),
  rule(frameTypes.data, "DATA", [1, maxFramePayloadBytes], "stream"),
  rule(frameTypes.end, "END", [0, 0], "stream"),
  rule(frameTypes.reset, "RESET", [2, maxOpenBytes], "stream"),
  rule(frameTypes.credit, "CREDIT", [4, 4], "stream"),
  rule(frameTypes.datagram, "DATAGRAM", [0, maxDatagramBytes], "stream"),
  rule(frameTypes.ack, "ACK", [4, 4], "beat"),
  rule(frameTypes.ping, "PING", [8, 8], "beat"),
  rule(frameTypes.pong, "PONG", [8, 8], "beat"),
  rule(frameTypes.goaway, "GOAWAY", [2, maxOpenBytes], "link"),
];

/** Whether frames of this type carry a sequence number. */
export function isSequenced(type: FrameType): boolean {
  return rules[type]?.sequenced ?? false;
}

/** The type's name as PROTOCOL §4 writes it. */
export function formatFrameType(type: FrameType): string {
  return rules[type]?.name ?? `type ${type}`;
}

const malformed = (message: string): ProtocolError => new ProtocolError(message, resetCodes.protocol);

export function readUint16(bytes: Uint8Array, offset: number): number {
  return ((bytes[offset] ?? 0) << 8) | (bytes[offset + 1] ?? 0);
}

export function readUint32(bytes: Uint8Array, offset: number): number {
  return ((readUint16(bytes, offset) << 16) | readUint16(bytes, offset + 2)) >>> 0;
}

export function writeUint32(target: Uint8Array, offset: number, value: number): void {
  target[offset] = value >>> 24;
  target[offset + 1] = value >>> 16;
  target[offset + 2] = value >>> 8;
  target[offset + 3] = value;
}

/** What a header says; `length` counts the payload. */
export interface FrameHeader {
  readonly type: FrameType;
  readonly streamId: number;
  readonly seq: number;
  readonly length: number;
}

/** Writes the 16 bytes of a header; the payload follows them. */
export function encodeHeader(target: Uint8Array, offset: number, header: FrameHeader): void {
  writeUint32(target, offset, header.length);
  target[offset + 4] = header.type;
  target[offset + 5] = 0;
  target[offset + 6] = 0;
  target[offset + 7] = 0;
  writeUint32(target, offset + 8, header.streamId);
  writeUint32(target, offset + 12, header.seq);
}

/** One frame as bytes of its own. The session's hot path uses `encodeHeader` and leaves payloads where they are. */
export function encodeFrame(frame: Frame): Uint8Array {
  const bytes = new Uint8Array(frameHeaderBytes + frame.payload.length);
  encodeHeader(bytes, 0, { ...frame, length: frame.payload.length });
  bytes.set(frame.payload, frameHeaderBytes);
  return bytes;
}

function decodeHeader(bytes: Uint8Array, offset: number): FrameHeader {
  const length = readUint32(bytes, offset);
  const type = bytes[offset + 4] ?? 0;
  const streamId = readUint32(bytes, offset + 8);
  const seq = readUint32(bytes, offset + 12);
  const known = rules[type];
  if (known === undefined) throw malformed(`frame type ${type} is unknown`);
  if (length < known.minBytes || length > known.maxBytes) {
    throw malformed(`${known.name} has ${length} bytes, expected ${known.minBytes} to ${known.maxBytes}`);
  }
  if (bytes[offset + 5] !== 0 || bytes[offset + 6] !== 0 || bytes[offset + 7] !== 0) {
    throw malformed(`${known.name} has flags or reserved bits set, expected 0`);
  }
  if ((known.scope === "link") !== (streamId === 0)) {
    throw malformed(`${known.name} names stream ${streamId}, expected ${known.scope === "link" ? "0" : "a stream"}`);
  }
  if (!known.sequenced && seq !== 0) throw malformed(`${known.name} has sequence number ${seq}, expected 0`);
  return { type: known.type, streamId, seq, length };
}

/**
 * chosen: a payload that fills less than this share of the chunk it came in is copied, so that a slow reader of small
 * frames holds at most this many times the bytes it is charged for.
 */
const sliceShare = 4;

/** Incremental decoder. A payload may be a view of the pushed chunk: the caller hands the chunk over. */
export class FrameDecoder {
  readonly #headerBytes = new Uint8Array(frameHeaderBytes);
  #headerFill = 0;
  #header: FrameHeader | undefined;
  #payload: Uint8Array | undefined;
  #payloadFill = 0;
  #broken = false;

  /** Bytes of an unfinished frame held now. */
  get bufferedBytes(): number {
    return this.#headerFill + this.#payloadFill;
  }

  /** Calls `onFrame` for each frame that this chunk completes. After a ProtocolError the decoder takes nothing more. */
  push(chunk: Uint8Array, onFrame: (frame: Frame) => void): void {
    if (this.#broken) throw malformed("bytes after a malformed frame");
    try {
      let offset = 0;
      while (offset < chunk.length) offset = this.#step(chunk, offset, onFrame);
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }

  #step(chunk: Uint8Array, start: number, onFrame: (frame: Frame) => void): number {
    let offset = start;
    if (this.#header === undefined) {
      const needed = frameHeaderBytes - this.#headerFill;
      if (chunk.length - offset < needed) {
        this.#headerBytes.set(chunk.subarray(offset), this.#headerFill);
        this.#headerFill += chunk.length - offset;
        return chunk.length;
      }
      if (this.#headerFill === 0) {
        this.#header = decodeHeader(chunk, offset);
      } else {
        this.#headerBytes.set(chunk.subarray(offset, offset + needed), this.#headerFill);
        this.#header = decodeHeader(this.#headerBytes, 0);
      }
      offset += needed;
      this.#headerFill = frameHeaderBytes;
    }
    return this.#readPayload(this.#header, chunk, offset, onFrame);
  }

  #readPayload(header: FrameHeader, chunk: Uint8Array, offset: number, onFrame: (frame: Frame) => void): number {
    const available = chunk.length - offset;
    if (this.#payload === undefined && available >= header.length) {
      const end = offset + header.length;
      const view = chunk.subarray(offset, end);
      this.#finish(header, header.length * sliceShare < chunk.length ? copyOf(view) : view, onFrame);
      return end;
    }
    // Filled completely before it is handed on, so unzeroed memory never leaks.
    this.#payload ??= Buffer.allocUnsafeSlow(header.length);
    const take = Math.min(available, header.length - this.#payloadFill);
    this.#payload.set(chunk.subarray(offset, offset + take), this.#payloadFill);
    this.#payloadFill += take;
    if (this.#payloadFill === header.length) this.#finish(header, this.#payload, onFrame);
    return offset + take;
  }

  #finish(header: FrameHeader, payload: Uint8Array, onFrame: (frame: Frame) => void): void {
    this.#header = undefined;
    this.#headerFill = 0;
    this.#payload = undefined;
    this.#payloadFill = 0;
    onFrame({ type: header.type, streamId: header.streamId, seq: header.seq, payload });
  }
}

function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}
