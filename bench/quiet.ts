// Whether the machine has time for a measurement: what others do meanwhile is in every figure, base lines included.
import { cpus } from "node:os";
import { systemClock } from "#base/clock.ts";

const lookMs = 2000;
const wantedIdle = 0.85;
const looks = 15;
const never = new AbortController().signal;

/** Waits a while for others to be done; resolves with the share of the processors that is idle then. */
export async function quietMachine(): Promise<number> {
  let idle = await idleShare();
  for (let look = 1; look < looks && idle < wantedIdle; look++) idle = await idleShare();
  return idle;
}

async function idleShare(): Promise<number> {
  const before = times();
  await systemClock.sleep(lookMs, never);
  const after = times();
  return (after.idle - before.idle) / (after.all - before.all);
}

function times(): { readonly idle: number; readonly all: number } {
  let [idle, all] = [0, 0];
  for (const { times: of } of cpus()) {
    idle += of.idle;
    all += of.idle + of.user + of.sys + of.nice + of.irq;
  }
  return { idle, all };
}
