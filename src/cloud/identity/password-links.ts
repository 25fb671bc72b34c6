// Links by which people choose a new password, made by an administrator for somebody who has forgotten theirs. Good
// once, for a day, and while whoever made it is an administrator.
import { AppError } from "#base/error.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import { hashToken, newToken } from "./tokens.ts";

/** chosen. */
const lastsMs = 24 * 3600 * 1000;

/** Earlier ones of that person end. */
export async function makePasswordLink(queries: Queries, personId: string, by: string, nowMs: number): Promise<string> {
  const token = newToken("password");
  await queries.run("DELETE FROM password_links WHERE expires_ms < $1 OR person_id = $2", [nowMs, personId]);
  await queries.run("INSERT INTO password_links (hash, person_id, made_by, expires_ms) VALUES ($1, $2, $3, $4)", [
    hashToken(token),
    personId,
    by,
    nowMs + lastsMs,
  ]);
  return token;
}

export interface Account {
  readonly id: string;
  readonly name: string;
  readonly subject: string;
}

const good = `password_links.hash = $1 AND password_links.expires_ms > $2
  AND EXISTS (SELECT 1 FROM people AS makers WHERE makers.id = password_links.made_by AND makers.admin = 1)`;

/** Looks without using it up. */
export async function findPasswordLink(queries: Queries, token: string, nowMs: number): Promise<Account> {
  const found = await one<Account>(
    queries,
    `SELECT people.id, people.name, people.subject FROM password_links JOIN people ON people.id = person_id
     WHERE people.issuer = '' AND ${good}`,
    [hashToken(token), nowMs],
  );
  if (found !== undefined) return found;
  throw new AppError("not_found", "this link was used or has expired; ask an administrator for another one");
}

/** Inside a transaction: of two uses at once one fails. */
export async function usePasswordLink(queries: Queries, token: string, nowMs: number): Promise<Account> {
  const account = await findPasswordLink(queries, token, nowMs);
  const used = await queries.run("DELETE FROM password_links WHERE hash = $1", [hashToken(token)]);
  if (used === 1) return account;
  throw new AppError("not_found", "this link was used just now");
}

/** Browsers that are logged in with the one before are not any more. */
export async function setPassword(queries: Queries, personId: string, hash: string): Promise<void> {
  await queries.run("UPDATE people SET password = $1 WHERE id = $2", [hash, personId]);
  await queries.run("DELETE FROM browser_sessions WHERE person_id = $1", [personId]);
  await queries.run("DELETE FROM password_links WHERE person_id = $1", [personId]);
}
