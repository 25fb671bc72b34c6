// How slow the machine was while something was measured: other programs' work makes a program start later that has
// nothing to do with the product. Limits of a quiet machine are multiplied by it, and stand as they are on one.
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "#testbed/exec.ts";

/** chosen: what the start of an empty Node program takes on a machine of two cores that is not busy. */
const quietStartMs = 60;
/** chosen: often enough for a mean of a few seconds, seldom enough not to be what makes it slow. */
const everyMs = 200;

/**
 * At least 1; starts empty programs until the work has ended, well or not. A work that keeps the machine busy itself for
 * a part of that time had better go on for a while after: the mean counts.
 */
export async function slownessDuring(work: Promise<unknown>): Promise<number> {
  const over = work.then(
    () => true,
    () => true,
  );
  const starts: number[] = [];
  do starts.push(await emptyStartMs());
  while (!(await Promise.race([over, sleep(everyMs, false)])));
  const meanMs = starts.reduce((sum, ms) => sum + ms, 0) / starts.length;
  return Math.max(1, Math.round((meanMs * 10) / quietStartMs) / 10);
}

async function emptyStartMs(): Promise<number> {
  const startMs = performance.now();
  await run(process.execPath, ["-e", "0"]);
  return performance.now() - startMs;
}
