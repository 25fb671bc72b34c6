// Chunks that sockets and TLS hand over are garbage a moment later, and cheap to collect then. But V8 (14, Node 26) begins
// no collection of the young for them: their bytes lie outside its heap and count against the limit of the old, so each
// 10 MB of traffic cost a collection of everything. Measured with one stream of bulk, daemon and manager, processor
// seconds per GB: 7.9 and 4.6 without this, 3.1 and 2.4 with it (docs/decisions/0018-speed.md).
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

type Collect = (options: { readonly type: "minor" }) => void;

/** chosen: traffic of this process between two collections; each byte is in two or three chunks on its way. */
const collectEveryBytes = 4 * 1024 * 1024;

let movedBytes = 0;
let collect: Collect | undefined;

/** So many bytes went through a transport. */
export function countMoved(bytes: number): void {
  movedBytes += bytes;
  if (movedBytes < collectEveryBytes) return;
  movedBytes = 0;
  collect ??= findCollect();
  collect({ type: "minor" });
}

function findCollect(): Collect {
  setFlagsFromString("--expose-gc"); // the way to it without a flag on each program's command line
  return runInNewContext("gc") as Collect;
}
