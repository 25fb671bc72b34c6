import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { writePrivateFile } from "./environment-file.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-env-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("writePrivateFile()", () => {
  test("makes a file of mode 600", async () => {
    const path = join(folder, "new");
    await writePrivateFile(path, "x");
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
  test("names the file that it cannot write", async () => {
    await expect(writePrivateFile(join(folder, "no", "dir"), "x")).rejects.toThrow(
      /no\/dir cannot be written: there is no such/,
    );
  });
});
