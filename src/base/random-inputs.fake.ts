// Random inputs of tests: the same again from the same number, and how many of them a test takes. `FUZZ_INPUTS` says that
// for all of them: `npm run check` takes few, a long run many.

/** What a test takes where nobody says otherwise; one that takes fewer, because each is slow, takes no more than that. */
export const usualInputs = 20_000;

export function randomInputs(atMost: number = usualInputs): number {
  const asked = Number(process.env["FUZZ_INPUTS"] ?? usualInputs);
  return atMost < usualInputs ? Math.min(asked, atMost) : asked;
}

/** mulberry32: numbers from 0 up to 1. */
export function randomFrom(state: number): () => number {
  let next = state;
  return () => {
    next = (next + 0x6d2b79f5) | 0;
    let mixed = Math.imul(next ^ (next >>> 15), 1 | next);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
