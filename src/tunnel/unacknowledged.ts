// Frames that left and that the far end has not acknowledged (PROTOCOL §4.3): what a transport took with it when it was
// lost is sent again on the next (§6.5). Payloads are held by reference, as their writers gave them.
// Invariant: in the order of their numbers, without a gap.
import type { FrameType } from "#wire/frame.ts";

export interface SentFrame {
  readonly type: FrameType;
  readonly streamId: number;
  readonly seq: number;
  /** Of the payload. */
  readonly length: number;
  readonly pieces: readonly Uint8Array[];
}

/** chosen: what a frame costs besides its payload, so that empty ones are bounded too. */
const frameOverheadBytes = 128;
/** chosen: the list is cut when so many of its first places are empty. */
const cutPlaces = 1024;

export class Unacknowledged {
  #frames: (SentFrame | undefined)[] = [];
  #first = 0;
  #bytes = 0;

  /** What they hold in memory. */
  get bytes(): number {
    return this.#bytes;
  }
  get count(): number {
    return this.#frames.length - this.#first;
  }

  add(frame: SentFrame): void {
    this.#frames.push(frame);
    this.#bytes += frame.length + frameOverheadBytes;
  }

  /** The far end has every frame up to this number (modulo 2^32). */
  acknowledge(seq: number): void {
    for (let frame = this.at(0); frame !== undefined && ((seq - frame.seq) | 0) >= 0; frame = this.at(0)) {
      this.#bytes -= frame.length + frameOverheadBytes;
      this.#frames[this.#first] = undefined;
      this.#first += 1;
    }
    if (this.#first === this.#frames.length) {
      this.#frames.length = 0;
      this.#first = 0;
    } else if (this.#first >= cutPlaces) {
      this.#frames = this.#frames.slice(this.#first);
      this.#first = 0;
    }
  }

  /** The oldest is 0. */
  at(index: number): SentFrame | undefined {
    return this.#frames[this.#first + index];
  }

  clear(): void {
    this.#frames.length = 0;
    this.#first = 0;
    this.#bytes = 0;
  }
}
