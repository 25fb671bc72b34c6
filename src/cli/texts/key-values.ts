// Aligned `key: value` blocks, the form of every multi-line answer of Telepresence 2.20.

export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** Lines below the value, indented further. */
  readonly below?: readonly string[];
}

/** Keys padded to the longest; the block as a whole indented by `indent` spaces. */
export function formatKeyValues(pairs: readonly KeyValue[], indent: number): readonly string[] {
  const width = Math.max(0, ...pairs.map(({ key }) => key.length));
  const margin = " ".repeat(indent);
  return pairs.flatMap(({ key, value, below = [] }) => [
    `${margin}${key.padEnd(width)}: ${value}`.trimEnd(),
    ...below.map((line) => `${margin}    ${line}`),
  ]);
}
