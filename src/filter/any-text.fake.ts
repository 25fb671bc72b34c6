// Texts that are likely to break quoting: every kind of character, with those that mean something somewhere in front.
import fc from "fast-check";

const meaning = "\"'`\\/()[]{}|&=!?*+.^$,;:%#<>rnRbQE \n\r\t\u0000\u007f\u0085\u2028\u202e\ufeff";
const anyPoint = fc
  .integer({ min: 0, max: 0x10ffff })
  .map((point) => (point >= 0xd800 && point <= 0xdfff ? "\ufffd" : String.fromCodePoint(point)));

/** Well-formed, of any characters. */
export const anyText: fc.Arbitrary<string> = fc
  .array(fc.oneof(fc.constantFrom(...meaning.split("")), fc.constantFrom("a", "b", "ä"), anyPoint), { maxLength: 24 })
  .map((chars) => chars.join(""));

/** Picks by a seed: many thousand texts of many parts take fast-check's own arrays too long. */
export class Picker {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * limit);
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  someOf<T>(items: readonly T[], most: number): readonly T[] {
    return Array.from({ length: this.below(most + 1) }, () => this.of(items));
  }
}
