import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { editDistance, nearestName } from "./nearest.ts";

describe("editDistance()", () => {
  test.each([
    ["", "", 0],
    ["port", "port", 0],
    ["prot", "port", 1],
    ["contex", "context", 1],
    ["kitten", "sitting", 3],
    ["", "abc", 3],
  ])("%s to %s is %i", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
  });

  test("is symmetric and bounded by the longer word", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
        const distance = editDistance(a, b);
        expect(distance).toBe(editDistance(b, a));
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(distance === 0).toBe(a === b);
      }),
    );
  });
});

describe("nearestName()", () => {
  const known = ["intercept.defaultPort", "images.registry", "cluster.mappedNamespaces"];
  test("finds what was meant", () => {
    expect(nearestName("intercept.defaultport", known)).toBe("intercept.defaultPort");
    expect(nearestName("image.registry", known)).toBe("images.registry");
  });
  test("finds nothing when nothing is near", () => {
    expect(nearestName("colour", known)).toBeUndefined();
    expect(nearestName("x", [])).toBeUndefined();
  });
});
