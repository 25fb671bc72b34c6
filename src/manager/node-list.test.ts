import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { createDialGuard } from "#egress/guard.ts";
import { followNodeList } from "./node-list.ts";

// Nodes that joined after the installation could be dialled.
test("a node that the file names later is not dialled from then on, also when the file goes", async () => {
  const folder = await mkdtemp(join(tmpdir(), "nodes-"));
  const path = join(folder, "nodes");
  const guard = createDialGuard({
    ownAddresses: [],
    nodeAddresses: ["10.0.0.1"],
    allowNodes: false,
    allowRanges: [],
    denyRanges: [],
  });
  const clock = new FakeClock();
  const onAddresses = (addresses: readonly string[]): void => guard.setMoreNodes(addresses);
  using _list = await followNodeList({ path, onAddresses, clock, log: silentLogger });
  expect(guard.check("10.0.0.2")).toBeUndefined();
  await writeFile(path, "10.0.0.2\nnot an address\nfd00::2\n");
  const refused = async (): Promise<boolean[]> => {
    await clock.advance(5000);
    return ["10.0.0.1", "10.0.0.2", "fd00::2", "10.0.0.3"].map((address) => guard.check(address) !== undefined);
  };
  await expect.poll(refused).toEqual([true, true, true, false]);
  await rm(folder, { recursive: true });
  expect(await refused()).toEqual([true, true, true, false]);
});
