import { describe, expect, test } from "vitest";
import { isAtLeast, missingPackages, parseGoVersion } from "./prerequisites.ts";

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
