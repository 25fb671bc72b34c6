// Logins of browsers: a cookie, kept as its hash. It ends after a fortnight, by logging out, or with its person.
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import { hashToken, newToken } from "./tokens.ts";

/** chosen. */
export const sessionMs = 14 * 24 * 3600 * 1000;

export async function openBrowserSession(queries: Queries, personId: string, nowMs: number): Promise<string> {
  const token = newToken("session");
  await queries.run("DELETE FROM browser_sessions WHERE expires_ms < $1", [nowMs]);
  await queries.run(
    "INSERT INTO browser_sessions (hash, person_id, created_ms, seen_ms, expires_ms) VALUES ($1, $2, $3, $3, $4)",
    [hashToken(token), personId, nowMs, nowMs + sessionMs],
  );
  return token;
}

/** Whose it is. */
export async function findBrowserSession(queries: Queries, token: string, nowMs: number): Promise<string | undefined> {
  const found = await one<{ person_id: string }>(
    queries,
    "SELECT person_id FROM browser_sessions WHERE hash = $1 AND expires_ms > $2",
    [hashToken(token), nowMs],
  );
  return found?.person_id;
}

export async function endBrowserSession(queries: Queries, token: string): Promise<void> {
  await queries.run("DELETE FROM browser_sessions WHERE hash = $1", [hashToken(token)]);
}
