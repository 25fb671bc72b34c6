// What arrives is a stranger's: each of these archives tries to write or to lead outside of its folder.
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Unpacker, type ArchiveEntry } from "./unpack.ts";

let outside = "";
let target = "";
beforeEach(() => {
  outside = mkdtempSync(join(tmpdir(), "unpack-"));
  target = join(outside, "in", "data");
  mkdirSync(join(outside, "in"));
  writeFileSync(join(outside, "secret"), "secret");
});
afterEach(() => rmSync(outside, { recursive: true }));

type Given = Partial<ArchiveEntry> & { readonly data?: string };

async function unpack(entries: readonly Given[], covered: readonly string[] = []): Promise<number> {
  await using unpacker = new Unpacker({ target, mountPath: "/data", covered: new Set(covered) });
  for (const { data = "", ...entry } of entries) {
    await unpacker.entry({ kind: "file", name: "", link: "", mode: 0o644, ...entry });
    for (const letter of data) await unpacker.data(Buffer.from(letter));
  }
  return unpacker.skipped;
}

/** Everything below the folder around it, links by where they lead. */
function tree(path = outside): readonly string[] {
  return readdirSync(path)
    .toSorted()
    .flatMap((name) => {
      const whole = join(path, name);
      const stat = lstatSync(whole);
      const shown = whole.slice(outside.length + 1);
      if (stat.isSymbolicLink()) return [`${shown} -> ${readlinkSync(whole)}`];
      const mode = (stat.mode & 0o7777).toString(8);
      return stat.isDirectory()
        ? [`${shown}/ ${mode}`, ...tree(whole)]
        : [`${shown} ${mode} ${readFileSync(whole, "utf8")}`];
    });
}

const around = ["in/ 755", "in/data/ 700"];

describe("Unpacker", () => {
  test("lays down files, folders and links, for the user alone", async () => {
    const skipped = await unpack([
      { kind: "folder", name: "./data/", mode: 0o777 },
      { name: "./data/a", data: "hello", mode: 0o4777 },
      { name: "./data/no/folder/before", data: "x", mode: 0o444 },
      { kind: "symlink", name: "./data/no/up", link: "../a" },
      { kind: "symlink", name: "./data/no/absolute", link: "/data/a" },
      { kind: "hardlink", name: "./data/same", link: "./data/a" },
      { name: "./data/a", data: "again" },
    ]);
    expect({ skipped, tree: tree() }).toEqual({
      skipped: 0,
      tree: [
        ...around,
        "in/data/a 600 again",
        "in/data/no/ 700",
        "in/data/no/absolute -> ../a",
        "in/data/no/folder/ 700",
        "in/data/no/folder/before 600 x",
        "in/data/no/up -> ../a",
        "in/data/same 700 hello",
        "secret 600 secret".replace("600", "644"),
      ],
    });
  });
  test("lays down a lone file", async () => {
    expect(await unpack([{ name: "./data", data: "one" }])).toBe(0);
    expect(tree()).toEqual(["in/ 755", "in/data 600 one", "secret 644 secret"]);
  });
  test("leaves to others what is theirs", async () => {
    await unpack(
      [
        { name: "./data/conf/x", data: "x" },
        { name: "./data/config", data: "y" },
      ],
      ["conf"],
    );
    expect(tree()).toEqual([...around, "in/data/config 600 y", "secret 644 secret"]);
  });

  const escapes: Readonly<Record<string, readonly Given[]>> = {
    "an absolute name": [{ name: "/etc/passwd", data: "x" }],
    "a name that climbs": [{ name: "./data/../../secret", data: "x" }],
    "a name that climbs at its end": [{ name: "./data/x/..", data: "x" }],
    "nothing but a dot": [{ name: ".", data: "x" }],
    "a NUL": [{ name: "./data/a\0b", data: "x" }],
    "a link that climbs": [{ kind: "symlink", name: "./data/l", link: "../../secret" }],
    "a link that climbs by one": [{ kind: "symlink", name: "./data/l", link: ".." }],
    "an absolute link": [{ kind: "symlink", name: "./data/l", link: "/etc" }],
    "a link into the folder that climbs out again": [{ kind: "symlink", name: "./data/l", link: "/data/../../secret" }],
    "a link that climbs after it has gone down": [{ kind: "symlink", name: "./data/l", link: "x/../../.." }],
    "a device": [{ kind: "other", name: "./data/null" }],
    "a hard link to what is not there": [{ kind: "hardlink", name: "./data/h", link: "secret" }],
    "a hard link that climbs": [{ kind: "hardlink", name: "./data/h", link: "./data/../../secret" }],
  };
  for (const [what, entries] of Object.entries(escapes)) {
    test(`lays down nothing of an archive with ${what}`, async () => {
      expect(await unpack(entries)).toBe(1);
      expect(
        tree().filter((line) => !/^in\/(data\/)? 7[05][05]$/.test(line) && !line.startsWith("in/data/x/")),
      ).toEqual(["secret 644 secret"]);
    });
  }
  test("writes nothing through links of the archive", async () => {
    const skipped = await unpack([
      { kind: "folder", name: "./data/real" },
      { kind: "symlink", name: "./data/real/up", link: ".." },
      { kind: "symlink", name: "./data/l", link: "real" },
      { name: "./data/l/x", data: "through" },
      { name: "./data/real/up/y", data: "through" },
      { kind: "symlink", name: "./data/far", link: "real/up/../.." },
    ]);
    expect({ skipped, tree: tree() }).toEqual({
      skipped: 3,
      tree: [...around, "in/data/l -> real", "in/data/real/ 700", "in/data/real/up -> ..", "secret 644 secret"],
    });
  });
});
