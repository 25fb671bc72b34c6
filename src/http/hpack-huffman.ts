// The Huffman code of header strings (RFC 7541 §5.2, Appendix B). It is canonical: codes follow from their lengths, in
// order of length, then symbol.

/** Bits of the code of each byte, and of EOS at last: as many rows of 16 as there are, from Appendix B. */
const bitLengths = [
  "13 23 28 28 28 28 28 28 28 24 30 28 28 30 28 28",
  "28 28 28 28 28 28 30 28 28 28 28 28 28 28 28 28",
  "6 10 10 12 13 6 8 11 10 10 8 11 8 6 6 6",
  "5 5 5 6 6 6 6 6 6 6 7 8 15 6 12 10",
  "13 6 7 7 7 7 7 7 7 7 7 7 7 7 7 7",
  "7 7 7 7 7 7 7 7 8 7 8 13 19 13 14 6",
  "15 5 6 5 6 5 6 6 6 5 7 7 6 6 6 5",
  "6 7 6 5 5 6 7 7 7 7 7 15 11 14 13 28",
  "20 22 20 20 22 22 22 23 22 23 23 23 23 23 24 23",
  "24 24 22 23 24 23 23 23 23 21 22 23 22 23 23 24",
  "22 21 20 22 22 23 23 21 23 22 22 24 21 22 23 23",
  "21 21 22 21 23 22 23 23 20 22 22 22 23 22 22 23",
  "26 26 20 19 22 23 22 25 26 26 26 27 27 26 24 25",
  "19 21 26 27 27 26 27 24 21 21 26 26 28 27 27 27",
  "20 24 20 21 22 21 21 23 22 22 25 25 24 24 26 23",
  "26 27 26 26 27 27 27 27 27 28 27 27 27 27 27 26",
  "30",
]
  .join(" ")
  .split(" ")
  .map(Number);

const endOfString = 256;
const longestBits = 30;

interface Level {
  /** Codes of this length begin here, and are so many. */
  readonly first: number;
  readonly symbols: readonly number[];
}

/** By length in bits. */
const levels: readonly Level[] = buildLevels();

function buildLevels(): Level[] {
  const built: Level[] = [{ first: 0, symbols: [] }];
  let next = 0;
  for (let bits = 1; bits <= longestBits; bits += 1) {
    next *= 2;
    const symbols: number[] = [];
    bitLengths.forEach((length, symbol) => length === bits && symbols.push(symbol));
    built.push({ first: next, symbols });
    next += symbols.length;
  }
  return built;
}

/** Undefined for what is no string of this code: a padding that is not the beginning of EOS, EOS itself. */
export function decodeHuffman(bytes: Buffer): Buffer | undefined {
  const text: number[] = [];
  let code = 0;
  let bits = 0;
  for (const byte of bytes) {
    for (let mask = 128; mask > 0; mask >>= 1) {
      code = code * 2 + ((byte & mask) === 0 ? 0 : 1);
      bits += 1;
      const level = levels[bits];
      if (level === undefined) return undefined;
      const symbol = level.symbols[code - level.first];
      if (symbol === undefined) continue;
      if (symbol === endOfString) return undefined;
      text.push(symbol);
      code = 0;
      bits = 0;
    }
  }
  const isPadding = bits < 8 && code === 2 ** bits - 1;
  return isPadding ? Buffer.from(text) : undefined;
}
