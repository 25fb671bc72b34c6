// What tests of bounded memory look with: it tells what is held, and not what is only not collected yet.
import { expect, test } from "vitest";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";

const mebibyte = 2 ** 20;

test("what is held beyond a bound is told, and what is let go is not", () => {
  const before = heldBytes();
  let blocks = Array.from({ length: 64 }, () => Buffer.alloc(mebibyte));
  expect(heldBeyond(before, 48 * mebibyte)).toBeGreaterThanOrEqual(64 * mebibyte - mebibyte);
  expect(blocks).toHaveLength(64);
  blocks = [];
  expect(heldBeyond(before, 48 * mebibyte)).toBeLessThan(48 * mebibyte);
});
