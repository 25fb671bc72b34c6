// A body as it passed, up to a limit: what is beyond is counted and not kept. It lies in one piece that grows: who sends
// his body byte by byte would else have us keep a hundred times what is in it.

/** chosen: of the first piece at least. */
const firstBytes = 256;
const nothing = Buffer.alloc(0);

export class BodyCopy {
  #maxBytes: number;
  #memory: Buffer = nothing;
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
  /** What it costs to keep. */
  get memoryBytes(): number {
    return this.#memory.length;
  }
  get isCut(): boolean {
    return this.#heldBytes < this.#bytes;
  }

  add(piece: Buffer): void {
    this.#bytes += piece.length;
    const kept = piece.subarray(0, Math.max(0, this.#maxBytes - this.#heldBytes));
    if (kept.length === 0) return;
    this.#reserve(this.#heldBytes + kept.length);
    kept.copy(this.#memory, this.#heldBytes);
    this.#heldBytes += kept.length;
  }

  /** Nothing of it is kept any more, whatever comes. */
  forget(): void {
    this.#maxBytes = 0;
    this.#heldBytes = 0;
    this.#memory = nothing;
  }

  /** What is kept now; it stays as it is when more comes. */
  read(): Buffer {
    return this.#memory.subarray(0, this.#heldBytes);
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#memory.length) return;
    const wanted = Math.max(bytes, 2 * this.#memory.length, firstBytes);
    const grown = Buffer.allocUnsafeSlow(Math.min(wanted, this.#maxBytes));
    this.#memory.copy(grown, 0, 0, this.#heldBytes);
    this.#memory = grown;
  }
}
