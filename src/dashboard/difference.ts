// What differs between two texts, line by line: the longest common sequence (Myers' distance would be quicker on long
// texts; what is too long for this one is compared as a whole).

export interface DiffLine {
  readonly kind: "same" | "left" | "right";
  readonly text: string;
}

/** chosen: 2,000 × 2,000 lines of a table of 32 bits are 16 MB. */
const maxLines = 2000;

export function difference(left: string, right: string): DiffLine[] {
  const a = left.split("\n");
  const b = right.split("\n");
  if (left === right) return a.map((text) => ({ kind: "same", text }));
  if (a.length > maxLines || b.length > maxLines) {
    return [
      ...a.map((text) => ({ kind: "left", text }) as const),
      ...b.map((text) => ({ kind: "right", text }) as const),
    ];
  }
  return walk(a, b, lengths(a, b));
}

/** At `i * (b.length + 1) + j`: how many lines the rests from `i` and `j` have in common. */
function lengths(a: readonly string[], b: readonly string[]): Uint32Array {
  const width = b.length + 1;
  const table = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const down = table[(i + 1) * width + j] ?? 0;
      const across = table[i * width + j + 1] ?? 0;
      table[i * width + j] = a[i] === b[j] ? (table[(i + 1) * width + j + 1] ?? 0) + 1 : Math.max(down, across);
    }
  }
  return table;
}

function walk(a: readonly string[], b: readonly string[], table: Uint32Array): DiffLine[] {
  const width = b.length + 1;
  const lines: DiffLine[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const [left, right] = [a[i], b[j]];
    if (left !== undefined && left === right) {
      lines.push({ kind: "same", text: left });
      i += 1;
      j += 1;
    } else if (
      right === undefined ||
      (left !== undefined && (table[(i + 1) * width + j] ?? 0) >= (table[i * width + j + 1] ?? 0))
    ) {
      lines.push({ kind: "left", text: left ?? "" });
      i += 1;
    } else {
      lines.push({ kind: "right", text: right });
      j += 1;
    }
  }
  return lines;
}
