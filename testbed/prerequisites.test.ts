import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { isAtLeast, missingPackages, parseGoVersion, requireGo, requireRoot, requireTun } from "./prerequisites.ts";

describe("what cannot be mended here is one sentence, with what to do", () => {
  test("root", () => {
    requireRoot(0);
    expect(() => requireRoot(1000)).toThrow(
      expect.objectContaining({
        message: "the test cluster needs root and this is an ordinary user",
        hint: "run the same command with sudo or in a root shell",
      }),
    );
  });
  test.each(["/dev/null/tun", "/etc/hostname"])("a TUN device: %s is none", (path) => {
    expect(() => requireTun(path)).toThrow(
      expect.objectContaining({
        message: "the machine has no /dev/net/tun, which connect needs to make its device",
        hint: expect.stringContaining("modprobe tun") as string,
      }),
    );
  });
  test("Go, which is absent or too old", async () => {
    const hint = "install Go from https://go.dev/dl/ into /usr/local/go";
    await expect(requireGo("1.24.0", () => undefined)).rejects.toMatchObject({
      message: "Go 1.24.0 or later is needed to build Kubernetes and is not here",
      hint,
    });
    const folder = mkdtempSync(join(tmpdir(), "telepresence-go-"));
    const old = join(folder, "go");
    writeFileSync(old, "#!/bin/sh\necho go1.19.8\n");
    chmodSync(old, 0o755);
    try {
      await expect(requireGo("1.24.0", () => old)).rejects.toMatchObject({
        message: `Go 1.24.0 or later is needed and ${old} is go1.19.8`,
        hint,
      });
      expect(await requireGo("1.19.0", () => old)).toBe(old);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("Go's version", () => {
  test("is read from the tool's words and from go.mod", () => {
    expect(parseGoVersion("go1.26.8\n")).toEqual([1, 26, 8]);
    expect(parseGoVersion("1.24.0")).toEqual([1, 24, 0]);
    expect(parseGoVersion("go1.25rc1")).toEqual([1, 25, 0]);
    expect(parseGoVersion("devel")).toBeUndefined();
  });
  test("compares part by part", () => {
    expect(isAtLeast([1, 26, 8], [1, 24, 0])).toBe(true);
    expect(isAtLeast([1, 24, 0], [1, 24, 0])).toBe(true);
    expect(isAtLeast([1, 9, 9], [1, 24, 0])).toBe(false);
  });
});

describe("missingPackages()", () => {
  test("names none when every file is there", () => {
    expect(missingPackages((name) => name)).toEqual([]);
  });
  test("names the package of a missing program", () => {
    expect(missingPackages((name) => (name === "nft" ? undefined : name))).toEqual(["nftables"]);
  });
});
