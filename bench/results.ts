// What was measured, beside its base line of the same run: printed as it comes, written to bench/results/ as JSON and as
// a table, with the machine and how busy it was.
import { cpus, loadavg } from "node:os";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkoutRoot } from "#testbed/layout.ts";

export interface Figure {
  readonly what: string;
  readonly ours: number;
  readonly base?: number;
  readonly baseName?: string;
  readonly unit: string;
}

export type Add = (figure: Figure) => void;
export type Report = (name: string, figure: string) => void;

export class Results {
  readonly #name: string;
  readonly #report: Report;
  readonly #figures: Figure[] = [];
  readonly #loadAtStart = loadavg()[0] ?? 0;

  constructor(name: string, report: Report) {
    this.#name = name;
    this.#report = report;
  }

  readonly add: Add = (figure) => {
    this.#figures.push(figure);
    const beside = figure.base === undefined ? "" : `   ${figure.baseName} ${round(figure.base)}`;
    this.#report(figure.what, `${round(figure.ours)} ${figure.unit}${beside}`);
  };

  write(): void {
    const folder = join(checkoutRoot, "bench", "results");
    mkdirSync(folder, { recursive: true });
    const machine = `${cpus().length} × ${cpus()[0]?.model ?? "unknown processor"}`;
    const rounded = (value: number): number => Number(value.toFixed(1));
    const load = { start: rounded(this.#loadAtStart), end: rounded(loadavg()[0] ?? 0) };
    const figures = this.#figures;
    writeFileSync(join(folder, `${this.#name}.json`), `${JSON.stringify({ machine, load, figures }, undefined, 2)}\n`);
    const rows = figures.map((figure) => {
      const base = figure.base === undefined ? "–" : `${round(figure.base)} (${figure.baseName})`;
      return `| ${figure.what} | ${round(figure.ours)} ${figure.unit} | ${base} |`;
    });
    const head = `Measured on ${machine}, median of several runs; base lines in the same run. Load of the machine at the start and at the end: ${load.start}, ${load.end}.`;
    const table = ["| what | figure | base line |", "|---|---|---|", ...rows].join("\n");
    writeFileSync(join(folder, `${this.#name}.md`), `${head}\n\n${table}\n`);
  }
}

export function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function round(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
