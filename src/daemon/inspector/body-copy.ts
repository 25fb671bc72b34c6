// A body as it passed, up to a limit: what is beyond is counted and not kept.

export class BodyCopy {
  readonly #maxBytes: number;
  readonly #pieces: Buffer[] = [];
  #heldBytes = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** How long it was, all in all. */
  get bytes(): number {
    return this.#bytes;
  }
  get heldBytes(): number {
    return this.#heldBytes;
  }
  get isCut(): boolean {
    return this.#heldBytes < this.#bytes;
  }

  add(piece: Buffer): void {
    this.#bytes += piece.length;
    const left = this.#maxBytes - this.#heldBytes;
    if (left <= 0 || piece.length === 0) return;
    // A copy, not a view: a view keeps the whole chunk that it is part of.
    const kept = Buffer.from(piece.subarray(0, left));
    this.#pieces.push(kept);
    this.#heldBytes += kept.length;
  }

  read(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}
