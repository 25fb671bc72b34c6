// What this process holds, for tests that say it stays bounded: not what is only not collected yet, nor what the system
// has not taken back, which say more of the machine and of Node's flags.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
export const collectGarbage = runInNewContext("gc") as () => void;

/** Bytes of objects and of buffers outside of the heap. */
export function heldBytes(): number {
  collectGarbage();
  collectGarbage(); // what the first one's finalizers let go
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
