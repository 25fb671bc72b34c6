// The heads of the last requests, as bytes in one block of memory that is made once: what is written later takes the place
// of what is oldest, and is read again only when somebody asks. The beginning of each request line has a place of its own,
// so it outlives its head.
// Invariant: what is held never grows, and the collector sees none of it.
import type { AskedRequest } from "./decisions.ts";

/** chosen: heads of all requests together … */
const maxHeadBytes = 48 * 1024;
/** … and for each its request line, whose target is this long at most. */
const maxTargetBytes = 200;
/** chosen: a method longer than any that is in use, and the version. */
const lineBytes = 24 + " ".length + maxTargetBytes + " HTTP/1.1\r\n".length;

/** A request's head on its way: the first of these bytes, the request line before all. */
export interface ReceivedHead {
  readonly bytes: Buffer;
  readonly headBytes: number;
  /** Of the same bytes, later. */
  readonly read: (bytes: Buffer) => AskedRequest | undefined;
}

export interface RequestLine {
  readonly method: string;
  readonly target: string;
}

export class KeptHeads {
  readonly #block = Buffer.alloc(maxHeadBytes);
  /** How much was ever written: of it the last `maxHeadBytes` are there. */
  #written = 0;
  readonly #begins: Float64Array;
  readonly #lengths: Uint16Array;
  readonly #readers: (ReceivedHead["read"] | undefined)[];
  readonly #lines: Buffer;
  readonly #lineLengths: Uint8Array;

  /** For so many requests, each of which has a place. */
  constructor(places: number) {
    this.#begins = new Float64Array(places);
    this.#lengths = new Uint16Array(places);
    this.#readers = Array.from({ length: places });
    this.#lines = Buffer.alloc(places * lineBytes);
    this.#lineLengths = new Uint8Array(places);
  }

  keep(place: number, { bytes, headBytes, read }: ReceivedHead): void {
    this.#lineLengths[place] = bytes.copy(this.#lines, place * lineBytes, 0, Math.min(headBytes, lineBytes));
    this.#readers[place] = undefined;
    if (headBytes > maxHeadBytes) return;
    // In one piece, so the end of the block may stay empty.
    const left = maxHeadBytes - (this.#written % maxHeadBytes);
    const begin = headBytes > left ? this.#written + left : this.#written;
    bytes.copy(this.#block, begin % maxHeadBytes, 0, headBytes);
    this.#begins[place] = begin;
    this.#lengths[place] = headBytes;
    this.#readers[place] = read;
    this.#written = begin + headBytes;
  }

  /** Undefined when others are in its place, or it was too long to be kept. */
  read(place: number): AskedRequest | undefined {
    const begin = this.#begins[place] ?? 0;
    if (begin < this.#written - maxHeadBytes) return undefined;
    const at = begin % maxHeadBytes;
    return this.#readers[place]?.(this.#block.subarray(at, at + (this.#lengths[place] ?? 0)));
  }

  readLine(place: number): RequestLine {
    const at = place * lineBytes;
    const text = this.#lines.toString("latin1", at, at + (this.#lineLengths[place] ?? 0));
    const [, method = "", target = ""] = /^(?:\r\n)?(\S*) ([^\r]*?)(?: HTTP\/[^\r]*)?(?:\r|$)/.exec(text) ?? [];
    return { method, target: target.slice(0, maxTargetBytes) };
  }
}
