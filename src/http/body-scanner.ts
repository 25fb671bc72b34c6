// Finds the end of a message's body in bytes that come in any pieces. Chunked bodies (RFC 9112 §7.1) are read as far as
// needed to see where they end, trailers included; nothing is decoded or kept.
//
//   size ──CR──► size-lf ──0──► trailer (line start) ──CR──► end-lf ──LF──► done
//     │ ;           │ n              │ other ▲
//     ▼             ▼                ▼       │ CR LF
//   extension     data ─n bytes─► data-cr ──► data-lf ──► size
import { Unclear, maxHeadBytes } from "./head.ts";
import type { BodyLength } from "./body-length.ts";

const LF = 10;
const CR = 13;
const SEMICOLON = 59;
/** chosen: longest size line; extensions are legal and nobody uses them. */
const maxSizeLineBytes = 4096;
/** 13 hexadecimal digits are still a safe integer. */
const maxSizeDigits = 13;

type TrailerState = "trailer" | "trailer-line" | "trailer-lf" | "end-lf";
type ChunkState = "size" | "extension" | "size-lf" | "data-cr" | "data-lf" | TrailerState;

export class BodyScanner {
  /** Bytes left of the body, or of a chunk's data; Infinity until the connection closes. */
  #left: number;
  #chunked: boolean;
  #state: ChunkState = "size";
  #size = 0;
  #digits = 0;
  #lineBytes = 0;
  #unclear: Unclear | undefined;

  constructor(length: Exclude<BodyLength, "tunnel">) {
    this.#chunked = length === "chunked";
    if (typeof length === "number") this.#left = length;
    else this.#left = this.#chunked ? 0 : Infinity;
  }

  get done(): boolean {
    return this.#left === 0 && !this.#chunked;
  }
  get untilClose(): boolean {
    return this.#left === Infinity;
  }
  /** How many bytes are known to come. */
  get leftBytes(): number {
    return this.#left;
  }
  /** Why the body's end cannot be told; then `take` stopped before the byte that makes it so. */
  get unclear(): Unclear | undefined {
    return this.#unclear;
  }

  /** Reads on at `from`; returns where the body, or the chunk, ends. */
  take(chunk: Buffer, from: number): number {
    if (!this.#chunked) {
      const end = Math.min(chunk.length, from + this.#left);
      this.#left -= end - from;
      return end;
    }
    let at = from;
    while (at < chunk.length && this.#chunked) {
      if (this.#left > 0) {
        const count = Math.min(this.#left, chunk.length - at);
        this.#left -= count;
        at += count;
      } else {
        if (!this.#step(chunk[at] ?? 0)) return at;
        at += 1;
      }
    }
    return at;
  }

  /** One byte of the framing; false when it cannot be. */
  #step(byte: number): boolean {
    const next = this.#after(byte);
    if (next instanceof Unclear) {
      this.#unclear = next;
      return false;
    }
    this.#state = next;
    return true;
  }

  #after(byte: number): ChunkState | Unclear {
    switch (this.#state) {
      case "size":
        return this.#inSize(byte);
      case "extension":
        return byte === CR ? "size-lf" : this.#inLine(byte, maxSizeLineBytes, "extension");
      case "size-lf":
        return byte === LF ? this.#sizeKnown() : new Unclear("a chunk's size line has a bare carriage return");
      case "data-cr":
        return mustBe(CR, byte, "data-lf", "a chunk is longer than its size");
      case "data-lf":
        return mustBe(LF, byte, "size", "a chunk is longer than its size");
      case "trailer":
      case "trailer-line":
      case "trailer-lf":
      case "end-lf":
        return this.#inTrailers(this.#state, byte);
    }
  }

  #inTrailers(state: TrailerState, byte: number): ChunkState | Unclear {
    switch (state) {
      case "trailer":
        if (byte === CR) return "end-lf";
        if (byte === 32 || byte === 9) return new Unclear("a folded trailer line");
        return this.#inLine(byte, maxHeadBytes, "trailer-line");
      case "trailer-line":
        return byte === CR ? "trailer-lf" : this.#inLine(byte, maxHeadBytes, "trailer-line");
      case "trailer-lf":
        return mustBe(LF, byte, "trailer", "a trailer line has a bare carriage return");
      case "end-lf":
        if (byte !== LF) return new Unclear("the last line of a chunked body has a bare carriage return");
        this.#chunked = false;
        return "end-lf";
    }
  }

  #inSize(byte: number): ChunkState | Unclear {
    const digit = hexValue(byte);
    if (digit >= 0) {
      this.#digits += 1;
      this.#size = this.#size * 16 + digit;
      return this.#digits <= maxSizeDigits ? "size" : new Unclear("a chunk's size has too many digits");
    }
    if (this.#digits === 0) return new Unclear("a chunk's size is not a number");
    if (byte === CR) return "size-lf";
    if (byte === SEMICOLON) return "extension";
    return new Unclear("a chunk's size is followed by something else");
  }

  #sizeKnown(): ChunkState {
    const size = this.#size;
    this.#size = 0;
    this.#digits = 0;
    this.#lineBytes = 0;
    if (size === 0) return "trailer";
    this.#left = size;
    return "data-cr";
  }

  #inLine(byte: number, limitBytes: number, stay: ChunkState): ChunkState | Unclear {
    this.#lineBytes += 1;
    if (this.#lineBytes > limitBytes) return new Unclear("a line of a chunked body is too long");
    const control = (byte < 32 && byte !== 9) || byte === 127;
    return control ? new Unclear("a control character in the framing of a chunked body") : stay;
  }
}

function mustBe(wanted: number, byte: number, next: ChunkState, otherwise: string): ChunkState | Unclear {
  return byte === wanted ? next : new Unclear(otherwise);
}

/** -1 for what is no hexadecimal digit. */
function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const lower = byte | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}
