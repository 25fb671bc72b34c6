// An image that differs from one build to the next is imported again by every node, and nobody can say what changed.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { writeDockerArchive } from "./docker-archive.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "telepresence-archive-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const longPath = `${"folder-with-a-long-name/".repeat(6)}file`;

function layRoot(name: string): string {
  const root = join(folder, name);
  mkdirSync(join(root, longPath, ".."), { recursive: true });
  writeFileSync(join(root, "b"), "content of b");
  writeFileSync(join(root, "a"), "#!/bin/true\n");
  chmodSync(join(root, "a"), 0o775);
  writeFileSync(join(root, longPath), Buffer.alloc(3_000_000, 7));
  symlinkSync("b", join(root, "link"));
  mkdirSync(join(root, "tmp"));
  chmodSync(join(root, "tmp"), 0o1777);
  return root;
}

function write(rootDir: string, name: string): string {
  const outFile = join(folder, name);
  const config = { Entrypoint: ["/a"], User: "1000:1000" };
  const { bytes } = writeDockerArchive({ reference: "docker.io/test/image:1", rootDir, config, outFile });
  expect(readFileSync(outFile)).toHaveLength(bytes);
  return outFile;
}

test("writeDockerArchive() gives the same bytes for the same files, whatever their dates and owner's umask", () => {
  const [first, second] = [layRoot("first"), layRoot("second")];
  utimesSync(join(second, "b"), 1, 1);
  chmodSync(join(second, "b"), 0o600);
  expect(readFileSync(write(first, "1.tar")).equals(readFileSync(write(second, "2.tar")))).toBe(true);
});

test("writeDockerArchive() writes a layer that tar unpacks to the same files", () => {
  const root = layRoot("root");
  const unpacked = join(folder, "unpacked");
  mkdirSync(unpacked);
  execFileSync("tar", ["-xf", write(root, "image.tar"), "-C", unpacked]);
  const [manifest] = JSON.parse(readFileSync(join(unpacked, "manifest.json"), "utf8")) as [
    { readonly RepoTags: readonly string[]; readonly Layers: readonly string[]; readonly Config: string },
  ];
  expect(manifest.RepoTags).toEqual(["docker.io/test/image:1"]);
  const config = JSON.parse(readFileSync(join(unpacked, manifest.Config), "utf8")) as { readonly config: object };
  expect(config.config).toEqual({ Entrypoint: ["/a"], User: "1000:1000" });
  const listing = execFileSync("tar", ["-tvf", join(unpacked, manifest.Layers[0] ?? "")], { encoding: "utf8" });
  const lines = listing.trimEnd().split("\n");
  expect(lines.every((line) => line.includes(" 0/0 ") && line.includes(" 1970-01-01 "))).toBe(true);
  expect(lines.find((line) => line.endsWith(" a"))).toMatch(/^-rwxr-xr-x/);
  expect(lines.find((line) => line.endsWith(" tmp/"))).toMatch(/^drwxrwxrwt/);
  expect(listing).toContain("link -> b");
  execFileSync("tar", ["-xf", join(unpacked, manifest.Layers[0] ?? ""), "-C", unpacked]);
  expect(readFileSync(join(unpacked, longPath)).equals(readFileSync(join(root, longPath)))).toBe(true);
});

test("writeDockerArchive() leaves no half archive behind when it fails", () => {
  const root = layRoot("root");
  writeFileSync(join(root, "x".repeat(120)), "");
  expect(() => write(root, "image.tar")).toThrow("too long for a tar entry");
  expect(() => readFileSync(join(folder, "image.tar"))).toThrow("ENOENT");
});
