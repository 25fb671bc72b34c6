// Chunks that sockets and TLS hand over are garbage a moment later, and cheap to collect then. But V8 (14, Node 26) begins
// no collection of the young for them: their bytes lie outside its heap and count against the limit of the old, so each
// 10 MB of traffic cost a collection of everything. Measured with one stream of bulk, daemon and manager, processor
// seconds per GB: 7.9 and 4.6 without this, 3.1 and 2.4 with it (docs/decisions/0018-speed.md).
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

type Collect = (options: { readonly type: "minor" }) => void;

/** chosen: chunks between two collections. Twice as many, and V8 collects everything first, again (measured). */
const collectEveryBytes = 4 * 1024 * 1024;

let chunkBytes = 0;
let collect: Collect | undefined;

/** Chunks of so many bytes are garbage now, or will be in a moment. */
export function countChunks(bytes: number): void {
  chunkBytes += bytes;
  if (chunkBytes < collectEveryBytes) return;
  chunkBytes = 0;
  collect ??= findCollect();
  collect({ type: "minor" });
}

function findCollect(): Collect {
  setFlagsFromString("--expose-gc"); // the way to it without a flag on each program's command line
  return runInNewContext("gc") as Collect;
}
