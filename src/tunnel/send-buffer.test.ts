// Blocks are used again: what the transport still looks at, and what may have to be said again, must stay as it was.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodeFrame, frameTypes } from "#wire/frame.ts";
import { SendBuffer } from "./send-buffer.ts";

const frameOf = (seq: number, bytes: number): { payload: Uint8Array; whole: Uint8Array } => {
  const payload = new Uint8Array(bytes).fill(seq % 251);
  return { payload, whole: encodeFrame({ type: frameTypes.data, streamId: 1, seq, payload }) };
};

/** What the buffer should be: all bytes ever, beside it. */
class Model {
  readonly buffer = new SendBuffer();
  readonly #other = new SendBuffer();
  #all = Buffer.alloc(0);
  readonly #ends = [0];
  #seq = 0;
  #acknowledged = 0;

  add(bytes: number): void {
    this.#seq += 1;
    const { payload, whole } = frameOf(this.#seq, bytes);
    this.buffer.add({ type: frameTypes.data, streamId: 1, seq: this.#seq, length: bytes }, [
      payload.subarray(0, bytes >> 1),
      payload.subarray(bytes >> 1),
    ]);
    this.#all = Buffer.concat([this.#all, whole]);
    this.#ends.push(this.#all.length);
  }
  acknowledge(count: number): void {
    const due = Math.min(count, this.#seq - this.#acknowledged);
    this.buffer.acknowledge(due);
    this.#acknowledged += due;
  }
  /** Another session of this process, which takes whatever is free. */
  disturb(bytes: number): void {
    const payload = new Uint8Array(bytes).fill(255);
    this.#other.add({ type: frameTypes.data, streamId: 1, seq: 1, length: bytes }, [payload]);
  }
  /** What is wrong. */
  faults(letGo: number): string[] {
    const { buffer } = this;
    const kept = Math.min(letGo, buffer.tail);
    const views: Uint8Array[] = [];
    buffer.views(kept, buffer.head, views);
    const offset = buffer.tail + 1 + (letGo % 1000);
    const frameEnd = this.#ends.find((end) => end >= offset) ?? this.#all.length;
    const checks = {
      bytes: Buffer.concat(views).equals(this.#all.subarray(kept)),
      tail: buffer.tail === this.#ends[this.#acknowledged],
      head: buffer.head === this.#all.length,
      frameEnd: buffer.frameEnd(offset) === frameEnd,
    };
    return Object.entries(checks).flatMap(([name, holds]) => (holds ? [] : [name]));
  }
}

describe("SendBuffer", () => {
  test("keeps what is not acknowledged, and what is looked at, whoever uses the blocks before", () => {
    const size = fc.oneof(fc.nat(40), fc.nat(5000), fc.constantFrom(65_504, 65_520, 65_536), fc.nat(200_000));
    const step = fc.tuple(fc.nat(4), size, fc.nat(6));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const model = new Model();
        let letGo = 0;
        for (const [what, bytes, count] of steps) {
          if (what <= 1) model.add(bytes);
          else if (what === 2) model.acknowledge(count);
          else {
            if (what === 3) letGo = model.buffer.head;
            model.buffer.free(letGo);
            model.disturb(bytes);
          }
          expect(model.faults(letGo)).toEqual([]);
        }
      }),
      { numRuns: 200 },
    );
  });
});
