import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { formatComposeEnvironment, formatJsonEnvironment, writePrivateFile } from "./environment-file.ts";

const folder = mkdtempSync(join(tmpdir(), "telepresence-env-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("formatComposeEnvironment()", () => {
  test("sorts, and leaves plain values alone", () => {
    expect(formatComposeEnvironment({ B: "2", A: "one two", URL: "http://x:1/?a=b#c", EMPTY: "" })).toBe(
      "A=one two\nB=2\nEMPTY=\nURL=http://x:1/?a=b#c\n",
    );
  });

  test.each([
    ["pa$$word", "'pa$$word'"],
    ["x # y", "'x # y'"],
    [" padded ", "' padded '"],
    ['"quoted"', "'\"quoted\"'"],
    ["two\nlines", "'two\nlines'"],
    ["it's $5", '"it\'s \\$5"'],
    ["it's\ntwo", '"it\'s\\ntwo"'],
    ['it\'s "both" $x', '"it\'s \\"both\\" \\$x"'],
    ["C:\\dir", "'C:\\dir'"],
    ["C:\\", '"C:\\\\"'],
  ])("quotes %j where Compose would read something else", (value, text) => {
    expect(formatComposeEnvironment({ K: value })).toBe(`K=${text}\n`);
  });
});

test("formatJsonEnvironment() sorts and indents by two", () => {
  expect(formatJsonEnvironment({ B: "2", A: "1" })).toBe('{\n  "A": "1",\n  "B": "2"\n}\n');
});

describe("writePrivateFile()", () => {
  test("makes a file of mode 600", async () => {
    const path = join(folder, "new");
    await writePrivateFile(path, "x");
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });
  test("names the file that it cannot write", async () => {
    await expect(writePrivateFile(join(folder, "no", "dir"), "x")).rejects.toThrow(/no\/dir cannot be written: ENOENT/);
  });
});
