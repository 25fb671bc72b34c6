// Passwords of built-in accounts: argon2id by Node, with its parameters beside the hash, so that they may grow.
import { argon2, randomBytes, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { AppError } from "#base/error.ts";

/** What a guess costs; memory in KiB. */
export interface HashCost {
  readonly memory: number;
  readonly passes: number;
  readonly parallelism: number;
}

/** OWASP's second choice: 19 MiB, two passes, 50 ms here. Node's pool of threads bounds how many run at once, */
const present: HashCost = { memory: 19_456, passes: 2, parallelism: 1 };
const tagLength = 32;
const [minLength, maxLength] = [10, 200];

const deriveInPool = promisify(argon2);
/** chosen: and this how many wait for it: a second's worth. */
const maxAtOnce = 40;
let atOnce = 0;

async function derive(parameters: Parameters<typeof argon2>[1]): Promise<Buffer> {
  if (atOnce >= maxAtOnce) throw new AppError("busy", "too many people log in at once; try again in a moment");
  atOnce++;
  try {
    return await deriveInPool("argon2id", parameters);
  } finally {
    atOnce--;
  }
}

/** `cost` is a test's that is about something else: what it checks costs as much. */
export async function hashPassword(password: string, cost: HashCost = present): Promise<string> {
  if (password.length < minLength || password.length > maxLength) {
    throw new AppError(
      "usage",
      `the password has ${password.length} characters; expected ${minLength} to ${maxLength}`,
    );
  }
  const nonce = randomBytes(16);
  const tag = await derive({ message: password, nonce, tagLength, ...cost });
  const { memory, passes, parallelism } = cost;
  return ["argon2id", memory, passes, parallelism, nonce.toString("base64"), tag.toString("base64")].join("$");
}

/** Takes as long when there is no such account, so that nobody learns which there are. */
export async function checkPassword(password: string, stored: string | null | undefined): Promise<boolean> {
  const parts = (stored ?? nobody).split("$");
  const [memory, passes, parallelism] = parts.slice(1, 4).map(Number) as [number, number, number];
  const nonce = Buffer.from(parts[4] ?? "", "base64");
  const expected = Buffer.from(parts[5] ?? "", "base64");
  const message = password.slice(0, maxLength + 1);
  const tag = await derive({ message, nonce, tagLength, memory, passes, parallelism });
  return tag.length === expected.length && timingSafeEqual(tag, expected) && stored !== null && stored !== undefined;
}

const nobody = `argon2id$${present.memory}$${present.passes}$1$${"A".repeat(22)}==$${"A".repeat(43)}=`;
