// Figures as pictures: lines over one axis, SVG by hand, readable on light and on dark pages. Pure.

export interface Series {
  readonly name: string;
  /** x and y, by growing x. */
  readonly points: readonly (readonly [number, number])[];
}

export interface Plot {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  /** Powers of ten or two stand at equal distances. */
  readonly xScale?: "linear" | "log";
  readonly series: readonly Series[];
}

const [width, height] = [640, 360];
const area = { left: 56, right: width - 16, top: 40, bottom: height - 72 };
/** Told apart without colour too: each line has its own dashes. */
const looks = [
  ["#1f77b4", ""],
  ["#d95f02", "6 3"],
  ["#1b9e77", "2 3"],
  ["#7570b3", "8 3 2 3"],
  ["#a6761d", "1 2"],
  ["#666666", "12 4"],
] as const;

const style = `text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:14px;font-weight:600}.g{stroke:#8884;stroke-width:1}
@media (prefers-color-scheme:dark){text{fill:#ddd}}`;

export function formatPlot({ title, xLabel, yLabel, xScale = "linear", series }: Plot): string {
  const all = series.flatMap(({ points }) => points);
  const xs = all.map(([x]) => x);
  const top = niceAbove(Math.max(...all.map(([, y]) => y), Number.MIN_VALUE));
  const along = xScale === "log" ? Math.log : (x: number): number => x;
  const [from, to] = [along(Math.min(...xs)), along(Math.max(...xs))];
  const xAt = (x: number): number => area.left + ((along(x) - from) / (to - from || 1)) * (area.right - area.left);
  const yAt = (y: number): number => area.bottom - (y / top) * (area.bottom - area.top);
  const yTicks = [0, 0.25, 0.5, 0.75, 1].map((share) => share * top);
  const xTicks = xScale === "log" ? logTicks(Math.min(...xs), Math.max(...xs)) : [...new Set(xs)].slice(0, 12);
  const parts = [
    ...yTicks.map(
      (y) =>
        `<path class="g" d="M${area.left} ${fix(yAt(y))}H${area.right}"/>${text(area.left - 6, yAt(y) + 4, shown(y), "end")}`,
    ),
    ...xTicks.map((x) => text(xAt(x), area.bottom + 16, shown(x), "middle")),
    text((area.left + area.right) / 2, area.bottom + 34, xLabel, "middle"),
    text(area.left - 40, area.top - 8, yLabel, "start"),
    `<text class="t" x="${area.left - 40}" y="16">${escape(title)}</text>`,
    ...series.map((one, index) => lineOf(one, index, (x, y) => `${fix(xAt(x))} ${fix(yAt(y))}`)),
    ...series.map(({ name }, index) => legendOf(name, index)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(title)}"><style>${style}</style>${parts.join("\n")}</svg>\n`;
}

function lineOf({ points }: Series, index: number, at: (x: number, y: number) => string): string {
  const [colour, dashes] = lookOf(index);
  const path = points.map(([x, y], place) => `${place === 0 ? "M" : "L"}${at(x, y)}`).join("");
  return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="2" stroke-dasharray="${dashes}"/>`;
}

function legendOf(name: string, index: number): string {
  const [colour, dashes] = lookOf(index);
  const x = area.left - 40 + (index % 3) * 200;
  const y = height - 24 + Math.floor(index / 3) * 16;
  return `<path d="M${x} ${y}h28" stroke="${colour}" stroke-width="2" stroke-dasharray="${dashes}"/>${text(x + 34, y + 4, name, "start")}`;
}

function lookOf(index: number): readonly [string, string] {
  return looks[index % looks.length] ?? looks[0];
}

function logTicks(from: number, to: number): readonly number[] {
  const ticks: number[] = [];
  for (let power = Math.floor(Math.log10(from)); power <= Math.ceil(Math.log10(to)); power += 1) {
    for (const digit of [1, 2, 5]) ticks.push(digit * 10 ** power);
  }
  return ticks.filter((tick) => tick >= from && tick <= to);
}

function niceAbove(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= value) ?? 10) * power;
}

function text(x: number, y: number, what: string, anchor: "start" | "middle" | "end"): string {
  return `<text x="${fix(x)}" y="${fix(y)}" text-anchor="${anchor}">${escape(what)}</text>`;
}

const shown = (value: number): string => String(Number(value.toPrecision(2)));
const fix = (value: number): string => value.toFixed(1);
const escape = (what: string): string =>
  what.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
