// A run's random choices, so that a run that failed can be repeated: TELEPRESENCE_TEST_SEED takes the number that the
// output gives.
export const seed = Number(process.env["TELEPRESENCE_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

/** A fault comes at a random moment, not in step with what the test does. */
export async function aRandomMoment(random: () => number, upToMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, random() * upToMs));
}
