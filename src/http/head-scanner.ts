// Finds the end of a message's head in bytes that come in any pieces (RFC 9112 §2.2). Usually one piece holds the whole
// head and nothing is copied; a head in several pieces is gathered, at most `maxHeadBytes` of it.
import { Unclear, maxHeadBytes } from "./head.ts";

const emptyLine = Buffer.from("\r\n\r\n");
const noBytes = Buffer.alloc(0);
const LF = 10;
const CR = 13;

export class HeadScanner {
  #block = noBytes;
  #heldBytes = 0;

  /** What was gathered of a head that has no end yet. */
  get held(): Buffer {
    return this.#block.subarray(0, this.#heldBytes);
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /**
   * Reads on at `from`. The whole head when it ends in this chunk, of which all but the first `heldBytes` are this
   * chunk's; `clear` must follow. Undefined when all of the chunk was taken and more is needed.
   */
  scan(chunk: Buffer, from: number): Buffer | Unclear | undefined {
    if (this.#heldBytes === 0) {
      const found = chunk.indexOf(emptyLine, from);
      if (found >= 0 && found + 4 - from <= maxHeadBytes) return chunk.subarray(from, found + 4);
    }
    return this.#gather(chunk, from);
  }

  /** Forgets what was gathered: its head has been used. */
  clear(): void {
    this.#block = noBytes;
    this.#heldBytes = 0;
  }

  #gather(chunk: Buffer, from: number): Buffer | Unclear | undefined {
    const before = this.#heldBytes;
    const taken = Math.min(chunk.length - from, maxHeadBytes - before);
    this.#grow(before + taken);
    chunk.copy(this.#block, before, from, from + taken);
    const all = this.#block.subarray(0, before + taken);
    const found = all.indexOf(emptyLine, Math.max(0, before - 3));
    if (found >= 0) return all.subarray(0, found + 4);
    if (taken < chunk.length - from) return new Unclear(`the head is longer than ${maxHeadBytes} bytes`);
    // A head with bare line feeds would never end, while others understand it.
    if (hasBareLineFeed(all, before)) return new Unclear("a line ends without a carriage return");
    this.#heldBytes = before + taken;
    return undefined;
  }

  #grow(bytes: number): void {
    if (bytes <= this.#block.length) return;
    const block = Buffer.allocUnsafeSlow(Math.min(maxHeadBytes, Math.max(512, bytes * 2)));
    this.#block.copy(block, 0, 0, this.#heldBytes);
    this.#block = block;
  }
}

function hasBareLineFeed(bytes: Buffer, from: number): boolean {
  for (let at = bytes.indexOf(LF, from); at >= 0; at = bytes.indexOf(LF, at + 1)) {
    if (at === 0 || bytes[at - 1] !== CR) return true;
  }
  return false;
}
