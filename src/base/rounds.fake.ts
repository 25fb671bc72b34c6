// How often a test does what needs doing often. `npm run check` has a minute for everything.

/** `few` in `npm run check`, `usual` elsewhere. */
export function roundsOf(few: number, usual: number): number {
  return process.env["TELEPRESENCE_CHECK"] === undefined ? usual : few;
}
