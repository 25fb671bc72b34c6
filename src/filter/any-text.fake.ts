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
