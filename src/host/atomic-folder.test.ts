import { createHash } from "node:crypto";
import { lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, mkdirSync, utimesSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { AtomicFolder, replaceFile, type FolderContent } from "./atomic-folder.ts";

const root = mkdtempSync(join(tmpdir(), "atomic-"));
afterAll(() => rmSync(root, { recursive: true }));

const content = (files: Readonly<Record<string, string>>): FolderContent =>
  new Map(Object.entries(files).map(([path, text]) => [path, { data: Buffer.from(text), executable: path === "run" }]));

describe("AtomicFolder", () => {
  test("holds a version, for the user alone, and then the next", async () => {
    const path = join(root, "one");
    const folder = new AtomicFolder(path);
    expect(await folder.write(content({ a: "1", "sub/b": "1", run: "#!" }))).toBe(true);
    expect(readdirSync(path).filter((name) => !name.startsWith(".."))).toEqual(["a", "run", "sub"]);
    const modes = ["a", "run", "sub/b", "sub", "."].map((name) =>
      (statSync(join(path, name)).mode & 0o777).toString(8),
    );
    expect(modes).toEqual(["600", "700", "600", "700", "700"]);
    expect(await folder.write(content({ a: "1", "sub/b": "1", run: "#!" }))).toBe(false);
    expect(await folder.write(content({ a: "2", c: "2" }))).toBe(true);
    expect(readdirSync(path).toSorted()).toEqual(["..data", "..version_2", "a", "c"]);
    expect(readFileSync(join(path, "a"), "utf8")).toBe("2");
  });
  test("leaves names to others that are covered", async () => {
    const path = join(root, "covered");
    mkdirSync(join(path, "cache"), { recursive: true });
    const folder = new AtomicFolder(path, new Set(["cache"]));
    await folder.write(content({ cache: "hidden", a: "1" }));
    await folder.write(content({ a: "2" }));
    expect(lstatSync(join(path, "cache")).isDirectory()).toBe(true);
  });
  test.each(["../x", "/x", "a//b", "a/../../x", "..data", ".", "a/./b", "x\0"])("refuses the path %j", async (path) => {
    await expect(new AtomicFolder(join(root, "bad")).write(content({ [path]: "x" }))).rejects.toThrow("inside it");
  });
  test("shows a reader one version or the next, never a mixture", async () => {
    const path = join(root, "swap");
    const folder = new AtomicFolder(path);
    const version = (number: number): FolderContent =>
      content({ a: `${number}`.repeat(5000), b: `${number}`.repeat(5000) });
    await folder.write(version(1));
    let writing = true;
    const seen = new Set<string>();
    const reading = (async () => {
      while (writing) {
        const open = await readFile(join(path, "a"), "utf8").catch(() => undefined);
        if (open !== undefined) seen.add(`${open.length} ${new Set(open).size}`);
      }
    })();
    for (let number = 2; number < 9; number++) await folder.write(version(number));
    writing = false;
    await reading;
    expect([...seen]).toEqual(["5000 1"]);
  });
});

test("replaceFile() replaces a file of the user alone", async () => {
  const path = join(root, "lone", "file");
  await replaceFile(path, { data: Buffer.from("1"), executable: false });
  await replaceFile(path, { data: Buffer.from("2"), executable: false });
  expect([readFileSync(path, "utf8"), statSync(path).mode & 0o777, readdirSync(join(root, "lone"))]).toEqual([
    "2",
    0o600,
    ["file"],
  ]);
});

test("replaceFile() is there for many at once, and one of them stands in the end", async () => {
  const path = join(root, "many", "file");
  const texts = Array.from({ length: 20 }, (_, number) => `${number}`.repeat(5000));
  await Promise.all(texts.map((text) => replaceFile(path, { data: Buffer.from(text), executable: false })));
  expect(texts).toContain(readFileSync(path, "utf8"));
  expect(readdirSync(join(root, "many"))).toEqual(["file"]);
});

test("replaceFile() removes the draft that a killed process left, and none that another writes", async () => {
  const path = join(root, "killed", "file");
  const replace = () => replaceFile(path, { data: Buffer.from("1"), executable: false });
  await replace();
  const prefix = `..new_${createHash("sha256").update(path).digest("hex").slice(0, 16)}`;
  const [left, written] = [`${prefix}_left`, `${prefix}_written`].map((name) => join(root, "killed", name));
  for (const draft of [left ?? "", written ?? ""]) writeFileSync(draft, "secret");
  utimesSync(left ?? "", 0, 0);
  await replace();
  expect(readdirSync(join(root, "killed")).map((name) => name.replace(prefix, ""))).toEqual(["_written", "file"]);
});
