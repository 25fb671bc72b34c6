// The nodes' addresses in a file that laptops keep current (a ConfigMap, mounted): read again when it has changed. Nodes
// that are missing from it can be dialled, so what was read stays when the file goes or cannot be read.
import { readFile } from "node:fs/promises";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";

/** chosen: the kubelet itself takes up to a minute and a half to bring a change. Asking is cheaper than watching links. */
const readEveryMs = 5000;

export interface NodeListOptions {
  readonly path: string;
  readonly onAddresses: (addresses: readonly string[]) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Resolves when it has been read once. */
export async function followNodeList({ path, onAddresses, clock, log }: NodeListOptions): Promise<Disposable> {
  let last: string | undefined;
  let reading = false;
  const read = async (): Promise<void> => {
    if (reading) return;
    reading = true;
    const text = await readFile(path, "utf8").catch(() => undefined);
    reading = false;
    if (text === undefined || text === last) return;
    last = text;
    const addresses = text.split(/\s+/).filter((item) => item !== "");
    onAddresses(addresses);
    log.info("nodes listed", { addresses: addresses.length });
  };
  await read();
  return clock.every(readEveryMs, () => void read()).unref();
}
