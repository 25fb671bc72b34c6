// Values that a database keeps for all servers that use it.
import { randomBytes } from "node:crypto";
import { AppError } from "#base/error.ts";
import type { Queries } from "./database.ts";
import { one } from "./database.ts";

/** What forms are signed with; made by whoever needs it first. */
export async function signingKey(queries: Queries): Promise<string> {
  await queries.run("INSERT INTO settings (name, value) VALUES ('signing-key', $1) ON CONFLICT (name) DO NOTHING", [
    randomBytes(32).toString("base64url"),
  ]);
  const row = await one<{ value: string }>(queries, "SELECT value FROM settings WHERE name = 'signing-key'");
  if (row === undefined) throw new AppError("internal", "the signing key that was just made is not there");
  return row.value;
}
