// How many random inputs a test takes. `FUZZ_INPUTS` says it for all of them: `npm run check` takes few, a long run many.

/** What a test takes where nobody says otherwise; one that takes fewer, because each is slow, takes no more than that. */
export const usualInputs = 20_000;

export function randomInputs(atMost: number = usualInputs): number {
  const asked = Number(process.env["FUZZ_INPUTS"] ?? usualInputs);
  return atMost < usualInputs ? Math.min(asked, atMost) : asked;
}
