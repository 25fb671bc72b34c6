import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { checkPrivateFile, writePrivateFile } from "./environment-file.ts";

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

// A story of our own: an intercept stood, and callers came, before its file was found to be impossible.
describe("checkPrivateFile()", () => {
  test("makes and changes nothing", async () => {
    const [there, missing] = [join(folder, "there"), join(folder, "missing")];
    writeFileSync(there, "before");
    await checkPrivateFile(there);
    await checkPrivateFile(missing);
    await checkPrivateFile("/dev/null");
    expect([readFileSync(there, "utf8"), existsSync(missing)]).toEqual(["before", false]);
  });
  test.each([
    ["no/dir", "there is no such file or directory"],
    [".", "it is a directory"],
    ["file/below", "a part of its path is no directory"],
  ])("refuses %s as it would be when it is written", async (name, why) => {
    writeFileSync(join(folder, "file"), "");
    const path = join(folder, name);
    await expect(checkPrivateFile(path)).rejects.toThrow(`${path} cannot be written: ${why}`);
    await expect(writePrivateFile(path, "x")).rejects.toThrow(`${path} cannot be written: ${why}`);
  });
});
