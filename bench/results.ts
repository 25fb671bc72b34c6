// What was measured, beside its base line of the same run: printed as it comes, written to bench/results/ as JSON and as
// a table, with the machine and how busy it was.
import { cpus } from "node:os";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkoutRoot } from "#testbed/layout.ts";
import { quietMachine } from "./quiet.ts";

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
  /** Of the processors, when the first figure's measurement began. */
  #idleShare = Number.NaN;

  constructor(name: string, report: Report) {
    this.#name = name;
    this.#report = report;
  }

  /** To be called when everything stands, before the first measurement. */
  async begin(): Promise<void> {
    this.#idleShare = await quietMachine();
    this.#report("idle before", `${Math.round(this.#idleShare * 100)} % of the processors`);
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
    const idlePercent = Math.round(this.#idleShare * 100);
    const figures = this.#figures;
    writeFileSync(
      join(folder, `${this.#name}.json`),
      `${JSON.stringify({ machine, idlePercent, figures }, undefined, 2)}\n`,
    );
    const rows = figures.map((figure) => {
      const base = figure.base === undefined ? "–" : `${round(figure.base)} (${figure.baseName})`;
      return `| ${figure.what} | ${round(figure.ours)} ${figure.unit} | ${base} |`;
    });
    const head = `Measured on ${machine}, median of several runs; base lines in the same run. Idle before it: ${idlePercent} % of the processors.`;
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
