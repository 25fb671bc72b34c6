// How often a test of TARGETS' reliability table does what it does: what `npm test` has time for, or as often as the
// table says (`npm run soak`), or a share of that.

/** 0 where nobody soaks, 1 for the full counts. */
const share = Number(process.env["TELEPRESENCE_SOAK"] ?? 0);
export const soaking = share > 0;

export function countOf(usual: number, full: number): number {
  return Math.max(usual, Math.round(full * share));
}

/** A test's own time limit, for as many rounds more as there are. */
export function patience(usualMs: number, usual: number, full: number): number {
  return usualMs * Math.ceil(countOf(usual, full) / usual);
}
