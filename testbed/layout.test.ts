import { expect, test } from "vitest";
import { parseInstance } from "./layout.ts";

test("parseInstance() takes a short word and refuses what would not do as a name", () => {
  expect(parseInstance(undefined)).toBe("");
  expect(parseInstance("")).toBe("");
  expect(parseInstance("b2")).toBe("-b2");
  for (const bad of ["../x", "a b", "A", "-", "abcdefghijklm"])
    expect(() => parseInstance(bad)).toThrow("small letters");
});
