import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { tryLock } from "./lock.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-lock-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("tryLock()", () => {
  test("is had once at a time", () => {
    const path = join(folder, "once");
    const first = tryLock(path);
    expect(first).toBeDefined();
    expect(tryLock(path)).toBeUndefined();
    first?.[Symbol.dispose]();
    using again = tryLock(path);
    expect(again).toBeDefined();
  });

  test("comes back when its holder is killed", async () => {
    const path = join(folder, "killed");
    const source = `import { tryLock } from ${JSON.stringify(join(import.meta.dirname, "lock.ts"))};
      globalThis.held = tryLock(${JSON.stringify(path)}); console.log("held"); setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ["--input-type=module", "-e", source], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(holder.stdout, "data");
    expect(tryLock(path)).toBeUndefined();
    holder.kill("SIGKILL");
    await once(holder, "exit");
    using lock = tryLock(path);
    expect(lock).toBeDefined();
  });
});
