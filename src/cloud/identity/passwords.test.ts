// Hashing is slow on purpose, so how much of it may wait is bounded.
import { expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import { checkPassword, hashPassword } from "./passwords.ts";

test("a password fits its own hash only", async () => {
  const stored = await hashPassword("correct horse battery");
  expect(stored).toMatch(/^argon2id\$19456\$2\$1\$/);
  expect(await checkPassword("correct horse battery", stored)).toBe(true);
  expect(await checkPassword("correct horse batter", stored)).toBe(false);
  expect(await checkPassword("correct horse battery", undefined)).toBe(false);
});

test("more than a second's worth at once is refused, and the next is not", async () => {
  const cheap = `argon2id$8$1$1$${Buffer.alloc(16).toString("base64")}$${Buffer.alloc(32).toString("base64")}`;
  const checks = await Promise.allSettled(Array.from({ length: 45 }, () => checkPassword("x", cheap)));
  const refused = checks.filter((check) => check.status === "rejected" && isAppError(check.reason, "busy"));
  expect(refused).toHaveLength(5);
  expect(await checkPassword("x", cheap)).toBe(false);
});
