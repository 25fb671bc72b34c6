// A run's random choices, so that a run that failed can be repeated: TELEPRESENCE_TEST_SEED takes the number that the
// output gives.
export const seed = Number(process.env["TELEPRESENCE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

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

/** A fault comes at a random moment, not in step with what the test does. */
export async function aRandomMoment(random: () => number, upToMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, random() * upToMs));
}
