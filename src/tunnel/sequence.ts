// Sequence numbers and ACKs of a link (PROTOCOL §4.3): by them a session goes on over another transport (§6.5).
import { ProtocolError } from "#base/error.ts";
import { formatFrameType } from "#wire/frame.ts";
import type { Frame } from "#wire/frame.ts";
import { resetCodes } from "#wire/open.ts";

/** protocol: an ACK is due after so many sequenced frames, or so many bytes of payload in them, at the latest. */
const ackFrames = 64;
const ackBytes = 256 * 1024;

export class Sequence {
  #received = 0;
  #unackedFrames = 0;
  #unackedBytes = 0;
  #acked = 0;

  /** Number of the last sequenced frame that came. */
  get received(): number {
    return this.#received;
  }

  /** Something came that the far end still keeps. */
  get owesAck(): boolean {
    return this.#unackedFrames > 0;
  }

  /** Takes a sequenced frame; true when an ACK is due. Throws a ProtocolError at a gap or a repetition. */
  take(frame: Frame): boolean {
    const expected = (this.#received + 1) >>> 0;
    if (frame.seq !== expected) {
      const message = `${formatFrameType(frame.type)} has sequence number ${frame.seq}, expected ${expected}`;
      throw new ProtocolError(message, resetCodes.protocol);
    }
    this.#received = expected;
    this.#unackedFrames += 1;
    this.#unackedBytes += frame.payload.length;
    return this.#unackedFrames >= ackFrames || this.#unackedBytes >= ackBytes;
  }

  /** The number to acknowledge. */
  takeAck(): number {
    this.#unackedFrames = 0;
    this.#unackedBytes = 0;
    return this.#received;
  }

  /** The far end's ACK: between its last one and what was sent, modulo 2^32. */
  acknowledge(seq: number, lastSent: number): void {
    if ((seq - this.#acked) >>> 0 > (lastSent - this.#acked) >>> 0) {
      throw new ProtocolError(`ACK names ${seq}, expected ${this.#acked} to ${lastSent}`, resetCodes.protocol);
    }
    this.#acked = seq;
  }
}
