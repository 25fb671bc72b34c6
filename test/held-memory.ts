// What this process holds, for tests that say it stays bounded: not what is only not collected yet, nor what the system
// has not taken back, which say more of the machine and of Node's flags.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
export const collectGarbage = runInNewContext("gc") as (options?: { readonly type: "minor" }) => void;

/** Bytes of objects and of buffers outside of the heap. */
export function heldBytes(): number {
  collectGarbage();
  collectGarbage(); // what the first one's finalizers let go
  return uncollectedBytes();
}

/**
 * How much more than `before` is held, for a test that wants less than `boundBytes`. Where it is less even with what is
 * not collected yet, or only with what is not young any more, that is told: no more can be held, and collecting all that
 * a process of many test files has takes longer than what most tests do.
 */
export function heldBeyond(before: number, boundBytes: number): number {
  const most = uncollectedBytes() - before;
  if (most < boundBytes) return most;
  collectGarbage({ type: "minor" });
  const older = uncollectedBytes() - before;
  return older < boundBytes ? older : heldBytes() - before;
}

function uncollectedBytes(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
