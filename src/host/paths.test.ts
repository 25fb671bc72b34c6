import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ensureDirectory, ensureRuntimeDirectory, hostPaths } from "./paths.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "paths-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));
const uid = process.getuid?.() ?? 0;

describe("hostPaths()", () => {
  test("uses the XDG directories that are given", () => {
    chmodSync(directory, 0o700);
    const paths = hostPaths({
      XDG_RUNTIME_DIR: directory,
      XDG_CONFIG_HOME: "/c",
      XDG_CACHE_HOME: "/k",
      HOME: "/home/a",
    });
    expect(paths).toMatchObject({
      daemonSocket: join(directory, "telepresence/daemon.sock"),
      config: "/c/telepresence",
      cache: "/k/telepresence",
      log: "/k/telepresence/logs",
    });
  });
  test("gives each connection with a name a directory of its own, which fits a socket", () => {
    const paths = hostPaths({ XDG_RUNTIME_DIR: directory, HOME: "/h" }, undefined, "dev");
    expect(paths.daemonSocket).toBe(join(directory, "telepresence/by-name/dev/daemon.sock"));
    ensureRuntimeDirectory(paths.runtime);
    expect(statSync(paths.named).mode & 0o777).toBe(0o700);
    const longest = `/run/user/4294967295/telepresence/by-name/${"x".repeat(40)}`;
    expect(() => ensureRuntimeDirectory(longest)).not.toThrow("is longer than");
  });
  test("falls back to HOME and /tmp, and ignores relative paths", () => {
    const env = { HOME: "/home/a", XDG_CONFIG_HOME: "relative", XDG_RUNTIME_DIR: "also/relative" };
    const paths = hostPaths(env, "/nowhere");
    expect(paths.runtime).toBe(`/tmp/telepresence-${uid}`);
    expect(paths.config).toBe("/home/a/.config/telepresence");
  });
  test("knows a place for everything with an empty environment", () => {
    for (const path of Object.values(hostPaths({}))) expect(path).toMatch(/^\//);
  });
  test("does not use a runtime directory that others may write", () => {
    chmodSync(directory, 0o777);
    expect(hostPaths({ XDG_RUNTIME_DIR: directory }, "/nowhere").runtime).toBe(`/tmp/telepresence-${uid}`);
  });
  test("finds the user's runtime directory where the variable is missing, as the shell's commands do", () => {
    const own = join(directory, String(uid));
    mkdirSync(own, { mode: 0o700 });
    expect(hostPaths({}, directory).runtime).toBe(join(own, "telepresence"));
    expect(hostPaths({ XDG_RUNTIME_DIR: "/run/user/of-another" }, directory).runtime).toBe(join(own, "telepresence"));
  });
});

describe("ensureDirectory()", () => {
  test("makes what is missing, for the user alone, and takes what is there", () => {
    const path = join(directory, "a", "b");
    ensureDirectory(path);
    ensureDirectory(path);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const link = join(directory, "link");
    symlinkSync(path, link);
    ensureDirectory(join(link, "c"));
    expect(statSync(join(path, "c")).isDirectory()).toBe(true);
  });
  // With HOME=/proc the command ran for ever and took no signal.
  test("says why it cannot, where nothing can be made at all", () => {
    expect(() => ensureDirectory("/proc/of-nobody/telepresence")).toThrow(
      /^the directory \/proc\/of-nobody\/telepresence cannot be made: there is no such/,
    );
    writeFileSync(join(directory, "file"), "");
    expect(() => ensureDirectory(join(directory, "file", "x"))).toThrow(
      "cannot be made: a file of that name is in the way",
    );
  });
});

describe("ensureRuntimeDirectory()", () => {
  test("makes it for the user alone, twice over", () => {
    const path = join(directory, "run");
    ensureRuntimeDirectory(path);
    ensureRuntimeDirectory(path);
    expect(statSync(path).mode & 0o777).toBe(0o700);
  });
  test("refuses one that others may read, a link, a file of another user's, and a path too long", () => {
    const open = join(directory, "open");
    mkdirSync(open);
    chmodSync(open, 0o755);
    expect(() => ensureRuntimeDirectory(open)).toThrow("mode 755");
    const link = join(directory, "link");
    symlinkSync(open, link);
    expect(() => ensureRuntimeDirectory(link)).toThrow("is no directory");
    expect(() => ensureRuntimeDirectory(join(directory, "own"), uid + 1)).toThrow(
      `expected a directory of user ${uid + 1}`,
    );
    expect(() => ensureRuntimeDirectory(join(directory, "x".repeat(100)))).toThrow("longer than 107 bytes");
  });
});
