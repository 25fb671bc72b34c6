import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { expect, test } from "vitest";
import { checkoutRoot } from "./layout.ts";
import { takeLock } from "./lock.ts";

const name = (): string => `testbed-lock-test-${process.pid}-${Math.random()}`;

test("takeLock() waits until the holder releases, and says who holds it", async () => {
  const lock = name();
  const first = await takeLock(lock, "up", () => undefined);
  let holder = "";
  const told = Promise.withResolvers<void>();
  const second = takeLock(lock, "down", (text) => {
    holder = text;
    told.resolve();
  });
  await told.promise;
  expect(holder).toBe(`up (process ${process.pid})`);
  first.release();
  (await second).release();
});

// The story: a lock file of a run that was killed would keep everybody out until a person removed it.
test("takeLock() succeeds at once when the holder was killed", async () => {
  const lock = name();
  const file = join(checkoutRoot, "testbed/lock.ts");
  const script = `import { takeLock } from ${JSON.stringify(file)};
    await takeLock(${JSON.stringify(lock)}, "up", () => {}); console.log("held"); setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ["--input-type=module", "-e", script], { cwd: checkoutRoot });
  await once(holder.stdout, "data");
  const waiting = Promise.withResolvers<string>();
  const taken = takeLock(lock, "up", waiting.resolve);
  expect(await waiting.promise).toContain(String(holder.pid));
  holder.kill("SIGKILL");
  (await taken).release();
});
