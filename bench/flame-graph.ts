// A profile of V8 as a flame graph: callers below what they call, as wide as the time spent there. Pure; SVG by hand,
// with the whole name and the share where the pointer rests.

export interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
    readonly children?: readonly number[];
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

interface Frame {
  readonly name: string;
  /** Microseconds, with all that it calls. */
  micros: number;
  readonly callees: Map<string, Frame>;
}

const width = 1200;
const rowHeight = 16;
/** Narrower ones are left out. */
const leastPixels = 0.7;
/** A letter's width, so that names stay in their boxes. */
const letterPixels = 6.8;
const idle = new Set(["(idle)", "(program)"]);

/**
 * Shares are of the time in which it was not idle. V8 samples by the clock: on a busy machine a call that wakes another
 * process looks longer than it is, because that one runs first.
 */
export function formatFlameGraph(title: string, profile: Profile): string {
  const root = frameTree(profile);
  const boxes: string[] = [];
  let deepest = 0;
  const draw = (frame: Frame, x: number, depth: number): void => {
    const pixels = (frame.micros / root.micros) * width;
    if (pixels < leastPixels) return;
    deepest = Math.max(deepest, depth);
    boxes.push(boxOf(frame, { x, depth, pixels, share: frame.micros / root.micros }));
    let at = x;
    for (const callee of [...frame.callees.values()].toSorted((a, b) => b.micros - a.micros)) {
      draw(callee, at, depth + 1);
      at += (callee.micros / root.micros) * width;
    }
  };
  draw(root, 0, 0);
  const height = (deepest + 1) * rowHeight + 30;
  const style = "text{font:11px monospace}rect{stroke:#fff;stroke-width:.5}";
  const head = `<text x="4" y="16">${escape(title)}: ${(root.micros / 1e6).toFixed(2)} s in which it was not idle</text>`;
  const up = `<g transform="translate(0 ${height - rowHeight})">${boxes.join("\n")}</g>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"><style>${style}</style><rect width="100%" height="100%" fill="#fff"/>${head}${up}</svg>\n`;
}

/** Calls of the same function by the same caller are one. */
function frameTree({ nodes, samples, timeDeltas }: Profile): Frame {
  const stackOf = stacks(nodes);
  const own = new Map<number, number>();
  for (const [index, id] of samples.entries()) own.set(id, (own.get(id) ?? 0) + (timeDeltas[index] ?? 0));
  const root: Frame = { name: "all", micros: 0, callees: new Map() };
  for (const [id, micros] of own) {
    const stack = stackOf(id);
    if (!idle.has(stack[0] ?? "")) addTime(root, stack, micros);
  }
  return root;
}

/** By a node's number, the names from the outermost caller to itself. */
function stacks(nodes: Profile["nodes"]): (id: number) => readonly string[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map<number, number>();
  for (const { id, children } of nodes) for (const child of children ?? []) parents.set(child, id);
  return (id) => {
    const stack: string[] = [];
    for (let at: number | undefined = id; at !== undefined; at = parents.get(at)) {
      const node = byId.get(at);
      if (node !== undefined && node.callFrame.functionName !== "(root)") stack.unshift(nameOf(node.callFrame));
    }
    return stack;
  };
}

function addTime(root: Frame, stack: readonly string[], micros: number): void {
  root.micros += micros;
  let frame = root;
  for (const name of stack) {
    const callee: Frame = frame.callees.get(name) ?? { name, micros: 0, callees: new Map() };
    frame.callees.set(name, callee);
    callee.micros += micros;
    frame = callee;
  }
}

function nameOf({ functionName, url, lineNumber }: Profile["nodes"][number]["callFrame"]): string {
  const file = url.slice(url.lastIndexOf("/") + 1);
  return `${functionName === "" ? "(anonymous)" : functionName}${file === "" ? "" : ` ${file}:${lineNumber + 1}`}`;
}

interface Place {
  readonly x: number;
  readonly depth: number;
  readonly pixels: number;
  readonly share: number;
}

function boxOf({ name }: Frame, { x, depth, pixels, share }: Place): string {
  const y = -depth * rowHeight;
  const fits = name.slice(0, Math.floor((pixels - 4) / letterPixels));
  const title = `<title>${escape(name)} ${(share * 100).toFixed(1)} %</title>`;
  const box = `<rect x="${x.toFixed(1)}" y="${y}" width="${pixels.toFixed(1)}" height="${rowHeight}" fill="${colourOf(name)}"/>`;
  const text = fits.length < 3 ? "" : `<text x="${(x + 2).toFixed(1)}" y="${y + 12}">${escape(fits)}</text>`;
  return `<g>${title}${box}${text}</g>`;
}

/** Node's own files blue, ours by their name, the collector red. */
function colourOf(name: string): string {
  if (name.startsWith("(garbage")) return "#e57373";
  if (/ (node:|internal)/.test(name)) return "#90caf9";
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) % 40;
  return `hsl(${30 + hash} 80% 70%)`;
}

const escape = (what: string): string =>
  what.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
