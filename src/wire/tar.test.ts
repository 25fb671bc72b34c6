// Read by hand-made bytes and by what the tar of this machine writes; written for the tar of this machine to read.
import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { tarEnd, tarHeader, tarPadding, TarReader, type TarEntry } from "./tar.ts";

const folder = mkdtempSync(join(tmpdir(), "tar-"));
afterAll(() => rmSync(folder, { recursive: true }));

const long = `${"deep/".repeat(40)}end`;

/** Entries with their content, fed in pieces of this size. */
function read(bytes: Buffer, pieceBytes: number): readonly (TarEntry & { content: string })[] {
  const reader = new TarReader();
  const found: (TarEntry & { content: string })[] = [];
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    for (const event of reader.push(bytes.subarray(start, start + pieceBytes))) {
      if (event.type === "entry") found.push({ ...event.entry, content: "" });
      else if (event.type === "data") found.at(-1)!.content += event.data.toString("latin1");
    }
  }
  expect(reader.ended).toBe(true);
  return found;
}

const file = (name: string, content: string, mode = 0o644): Buffer => {
  const data = Buffer.from(content, "latin1");
  const header = tarHeader({ kind: "file", name, link: "", size: data.length, mode });
  return Buffer.concat([header, data, tarPadding(data.length)]);
};

describe("TarReader", () => {
  for (const format of ["gnu", "ustar", "pax"]) {
    test(`reads what tar writes in the format ${format}, in pieces of any size`, () => {
      const root = join(folder, format);
      const name = format === "ustar" ? `${"deep/".repeat(20)}end` : `${long}-ü`;
      mkdirSync(join(root, name, ".."), { recursive: true });
      writeFileSync(join(root, name), "x".repeat(1000));
      writeFileSync(join(root, "empty"), "");
      writeFileSync(join(root, "run"), "hello", { mode: 0o755 });
      symlinkSync("run", join(root, "link"));
      const bytes = execFileSync("tar", ["-cf", "-", `--format=${format}`, "-C", root, "."], { maxBuffer: 1e8 });
      for (const pieceBytes of [1, 511, 512, 513, 100_000]) {
        const files = read(bytes, pieceBytes).filter(({ kind }) => kind !== "folder");
        const seen = files.map((entry) => `${entry.kind} ${entry.name} ${entry.link} ${entry.content}`);
        expect(new Set(seen)).toEqual(
          new Set([
            `file ./${name}  ${"x".repeat(1000)}`,
            "file ./empty  ",
            "file ./run  hello",
            "symlink ./link run ",
          ]),
        );
        expect(files.find((entry) => entry.name === "./run")?.mode).toBe(0o755);
      }
    });
  }
  test("has no end where the stream was cut", () => {
    const reader = new TarReader();
    expect([...reader.push(file("a", "hello").subarray(0, 700))].map(({ type }) => type)).toEqual(["entry", "data"]);
    expect(reader.ended).toBe(false);
  });
  test("refuses what is no tar", () => {
    expect(() => [...new TarReader().push(Buffer.alloc(512, "tar: not found "))]).toThrow("wrong checksum");
  });
  test("survives any bytes", () => {
    const start = file("a", "hello");
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000 }), fc.integer({ min: 0, max: 1500 }), (noise, at) => {
        const bytes = Buffer.concat([start.subarray(0, at), noise, tarEnd]);
        try {
          for (const _event of new TarReader().push(bytes)) void _event;
        } catch (error) {
          expect(error).toMatchObject({ code: "protocol" });
        }
      }),
      { numRuns: 300 },
    );
  });
});

test("what is written here, tar reads", () => {
  const target = join(folder, "out");
  mkdirSync(target);
  const header = (entry: Partial<TarEntry>): Buffer =>
    tarHeader({ kind: "file", name: "", link: "", size: 0, mode: 0o644, ...entry });
  const bytes = Buffer.concat([
    header({ kind: "folder", name: "./data", mode: 0o755 }),
    file(`./data/${long}`, "y".repeat(513)),
    file("./data/run", "hi", 0o755),
    header({ kind: "symlink", name: "./data/link", link: `x/${long}` }),
    tarEnd,
  ]);
  execFileSync("tar", ["-xf", "-", "-C", target], { input: bytes });
  expect(readFileSync(join(target, "data", long), "utf8")).toBe("y".repeat(513));
  expect(statSync(join(target, "data/run")).mode & 0o777).toBe(0o755);
  expect(readlinkSync(join(target, "data/link"))).toBe(`x/${long}`);
  expect(read(bytes, 777).map(({ name }) => name)).toEqual(["./data", `./data/${long}`, "./data/run", "./data/link"]);
});
