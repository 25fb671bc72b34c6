// The numbered frames of a session as the bytes they are on the wire, from when they are made until the far end has
// them (PROTOCOL §4.3, §6.5). What is written copies its payload here once and is free again at once; a transport gets
// views of blocks that are used over and over, so that bulk leaves no garbage behind: every few megabytes of it would
// otherwise cost a collection of the whole heap.
//
//   freed ── acknowledged ──▶ tail ·········· given to the transport ·········· head ── frames to come
//
// Invariant: a block is not used again before its bytes are acknowledged and the transport has let go of them. A far end
// that acknowledges what it has not got would else be sent what others write there next.
import { encodeHeader, frameHeaderBytes } from "#wire/frame.ts";
import type { FrameHeader } from "#wire/frame.ts";

const blockBytes = 64 * 1024;
/** chosen: blocks of this process that nobody uses now, and that wait for the next one who does. */
const maxSpareBlocks = 64;
const spareBlocks: Uint8Array[] = [];
/** chosen: what a frame costs besides its bytes: the place where it ends. */
const frameOverheadBytes = 16;
/** chosen: the list of ends is cut when so many of its first places are over. */
const cutPlaces = 4096;

export class SendBuffer {
  /** The first holds the byte at #blockStart. Offsets count from the session's first byte. */
  #blocks: Uint8Array[] = [];
  #blockStart = 0;
  #tail = 0;
  #head = 0;
  /** Where each frame ends, the oldest that is not acknowledged at #first. */
  #ends: number[] = [];
  #first = 0;
  readonly #header = new Uint8Array(frameHeaderBytes);

  /** What is kept. */
  get bytes(): number {
    return this.#head - this.#tail + this.frameCount * frameOverheadBytes;
  }
  get frameCount(): number {
    return this.#ends.length - this.#first;
  }
  get tail(): number {
    return this.#tail;
  }
  get head(): number {
    return this.#head;
  }

  add(header: FrameHeader, pieces: readonly Uint8Array[]): void {
    encodeHeader(this.#header, 0, header);
    this.#append(this.#header);
    for (const piece of pieces) this.#append(piece);
    this.#ends.push(this.#head);
  }

  /** The far end has the oldest `count` frames. */
  acknowledge(count: number): void {
    if (count <= 0) return;
    this.#first += count;
    this.#tail = this.#ends[this.#first - 1] ?? this.#head;
    if (this.#first === this.#ends.length) {
      this.#ends.length = 0;
      this.#first = 0;
    } else if (this.#first >= cutPlaces) {
      this.#ends = this.#ends.slice(this.#first);
      this.#first = 0;
    }
  }

  /** What is acknowledged and lies before `offset` is looked at by nobody any more. */
  free(offset: number): void {
    const end = Math.min(offset, this.#tail);
    while (this.#blocks.length > 0 && this.#blockStart + blockBytes <= end) {
      this.#release();
      this.#blockStart += blockBytes;
    }
    if (end < this.#head || this.#blocks.length === 0) return;
    this.#release(); // a quiet session holds nothing
    this.#blockStart = this.#head;
  }

  clear(): void {
    this.#blocks.length = 0; // an earlier transport may still look at them
    this.#ends.length = 0;
    this.#first = 0;
    this.#tail = this.#head;
    this.#blockStart = this.#head;
  }

  /** Where the frame ends that the byte before `offset` belongs to, or the last one. */
  frameEnd(offset: number): number {
    if (offset >= this.#head) return this.#head; // as a rule
    for (let index = this.#first; index < this.#ends.length; index += 1) {
      const end = this.#ends[index] ?? this.#head;
      if (end >= offset) return end;
    }
    return this.#head;
  }

  /** Views of the bytes in between. */
  views(start: number, end: number, into: Uint8Array[]): void {
    for (let at = start; at < end;) {
      const index = Math.floor((at - this.#blockStart) / blockBytes);
      const from = at - this.#blockStart - index * blockBytes;
      const to = Math.min(blockBytes, from + end - at);
      const block = this.#blocks[index];
      if (block === undefined) return;
      into.push(block.subarray(from, to));
      at += to - from;
    }
  }

  #append(bytes: Uint8Array): void {
    for (let taken = 0; taken < bytes.length;) {
      const used = this.#head - this.#blockStart;
      const from = used - (this.#blocks.length - 1) * blockBytes;
      if (this.#blocks.length === 0 || from === blockBytes) {
        this.#blocks.push(spareBlocks.pop() ?? Buffer.allocUnsafeSlow(blockBytes));
        continue;
      }
      const count = Math.min(blockBytes - from, bytes.length - taken);
      const part = count === bytes.length ? bytes : bytes.subarray(taken, taken + count);
      this.#blocks.at(-1)?.set(part, from);
      this.#head += count;
      taken += count;
    }
  }

  #release(): void {
    const block = this.#blocks.shift();
    if (block !== undefined && spareBlocks.length < maxSpareBlocks) spareBlocks.push(block);
  }
}
