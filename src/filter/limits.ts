// What bounds a filter and its evaluation. All chosen, except where a comment says how it was measured.

export const filterLimits = {
  /** The whole expression, as UTF-8. */
  textBytes: 4096,
  nodes: 600,
  /** Nesting of parentheses, indexes and calls. */
  depth: 24,
  listElements: 200,
  /** exists() inside exists() is useful (names × values), a third level is an attack. */
  nestedLoops: 2,
  /** Instructions of all regular expressions of one filter together; a common one has 10 to 60. */
  regexInstructions: 2000,
  /**
   * Steps of one evaluation, some 4 ns each. Measured on two busy cores, in processor time: the worst of a dozen
   * hostile expressions on hostile requests takes 5 ms once it has run a few times, and 20 ms the first time.
   */
  steps: 800_000,
  /** The request's target; servers commonly stop at 8 to 16 KiB. */
  targetLength: 64 * 1024,
  /** Names and values of all headers together. */
  headerLength: 128 * 1024,
  bodyBytes: 64 * 1024,
} as const;
