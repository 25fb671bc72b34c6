// Starts caller.ts on a laptop and gives back what it printed.
import { join } from "node:path";
import * as cluster from "#testbed/cluster.ts";
import type { Lab } from "./lab.ts";

const root = join(import.meta.dirname, "../..");
/** The Node that the checkout brings. */
export const nodeProgram = join(root, "node_modules/.bin/node");
const driver = join(import.meta.dirname, "caller.ts");

export async function call<T>(lab: Lab, task: string, input: unknown): Promise<T> {
  const argv = [nodeProgram, driver, task, JSON.stringify(input)];
  const { stdout } = await cluster.onLaptop(argv, { ...lab.laptopOptions, cwd: root });
  return JSON.parse(stdout) as T;
}

/** A measured figure, as the tests' output shows it. */
export function figure(what: string, value: number, unit = "ms"): void {
  // oxlint-disable-next-line no-console -- the one place where tests speak
  console.log(`[figure] ${what}: ${Math.round(value * 10) / 10} ${unit}`);
}

/** How long something took. */
export async function timed<T>(work: () => Promise<T>): Promise<readonly [T, number]> {
  const startMs = performance.now();
  const result = await work();
  return [result, performance.now() - startMs];
}
