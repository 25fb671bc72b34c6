// Logins of laptops. A refresh token is good once; who sends one that was spent before has a copy, or is the one that
// was copied from: the whole login ends. The one exception is an answer that was lost on its way.
import { AppError } from "#base/error.ts";
import { hashToken, newId, newToken } from "#cloud/identity/tokens.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import type { TokenAnswer } from "#wire/cloud-api.ts";

/** chosen: the access token; a login that nobody uses. */
const [accessMs, unusedMs] = [15 * 60_000, 60 * 24 * 3600_000];

interface LoginRow {
  readonly id: string;
  readonly person_id: string;
  readonly device: string;
  readonly refresh_hash: string;
  readonly confirmed: number;
}

interface Fresh {
  readonly answer: TokenAnswer;
  readonly access: string;
  readonly refresh: string;
}

function fresh(): Fresh {
  const [access, refresh] = [newToken("access"), newToken("refresh")];
  const answer = {
    access_token: access,
    refresh_token: refresh,
    token_type: "Bearer",
    expires_in: accessMs / 1000,
  } as const;
  return { answer, access: hashToken(access), refresh: hashToken(refresh) };
}

export interface NewLogin {
  readonly personId: string;
  /** What the laptop calls itself. */
  readonly device: string;
}

export async function openLogin(queries: Queries, { personId, device }: NewLogin, nowMs: number): Promise<TokenAnswer> {
  const { answer, access, refresh } = fresh();
  await queries.run("DELETE FROM logins WHERE expires_ms < $1", [nowMs]);
  await queries.run(
    `INSERT INTO logins (id, person_id, device, created_ms, seen_ms, expires_ms, access_hash, access_expires_ms,
       refresh_hash, previous_hash, confirmed) VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, NULL, 0)`,
    [newId(), personId, device, nowMs, nowMs + unusedMs, access, nowMs + accessMs, refresh],
  );
  return answer;
}

export type Refreshed =
  | { readonly kind: "refreshed"; readonly answer: TokenAnswer }
  | { readonly kind: "unknown" }
  | { readonly kind: "reused"; readonly personId: string; readonly device: string };

export function refreshLogin(database: Database, token: string, nowMs: number): Promise<Refreshed> {
  const hash = hashToken(token);
  return database.transaction(async (queries) => {
    const login = await one<LoginRow>(
      queries,
      `SELECT id, person_id, device, refresh_hash, confirmed FROM logins
       WHERE (refresh_hash = $1 OR (previous_hash = $1 AND confirmed = 0)) AND expires_ms > $2`,
      [hash, nowMs],
    );
    if (login === undefined) return endIfSpent(queries, hash);
    const { answer, access, refresh } = fresh();
    const changed = await queries.run(
      `UPDATE logins SET access_hash = $1, access_expires_ms = $2, refresh_hash = $3, previous_hash = $4,
         seen_ms = $5, expires_ms = $6, confirmed = 0 WHERE id = $7 AND refresh_hash = $8`,
      [access, nowMs + accessMs, refresh, hash, nowMs, nowMs + unusedMs, login.id, login.refresh_hash],
    );
    if (changed === 0) throw new AppError("busy", "two programs refresh the same login at once");
    // both are of no more use: the one that came, and the one whose answer was lost
    for (const spent of new Set([hash, login.refresh_hash])) {
      await queries.run("INSERT INTO spent_tokens (hash, login_id, at_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", [
        spent,
        login.id,
        nowMs,
      ]);
    }
    // a login that is used daily would have more of them for ever; older ones are of no use either way
    await queries.run("DELETE FROM spent_tokens WHERE login_id = $1 AND at_ms < $2", [login.id, nowMs - unusedMs]);
    return { kind: "refreshed", answer };
  });
}

async function endIfSpent(queries: Queries, hash: string): Promise<Refreshed> {
  const ended = await one<LoginRow>(
    queries,
    "DELETE FROM logins WHERE id IN (SELECT login_id FROM spent_tokens WHERE hash = $1) RETURNING person_id, device",
    [hash],
  );
  return ended === undefined
    ? { kind: "unknown" }
    : { kind: "reused", personId: ended.person_id, device: ended.device };
}

/** Whose access token it is. */
export async function findLogin(queries: Queries, token: string, nowMs: number): Promise<string | undefined> {
  const login = await one<{ id: string; person_id: string; confirmed: number }>(
    queries,
    "SELECT id, person_id, confirmed FROM logins WHERE access_hash = $1 AND access_expires_ms > $2",
    [hashToken(token), nowMs],
  );
  if (login?.confirmed === 0) {
    // of this token: a refresh meanwhile has made another, whose answer may be lost
    const confirm = "UPDATE logins SET confirmed = 1 WHERE id = $1 AND access_hash = $2";
    await queries.run(confirm, [login.id, hashToken(token)]);
  }
  return login?.person_id;
}

export interface EndedLogin {
  readonly personId: string;
  readonly device: string;
}

/** By either of its tokens. */
export async function endLogin(queries: Queries, token: string): Promise<EndedLogin | undefined> {
  const ended = await one<{ person_id: string; device: string }>(
    queries,
    "DELETE FROM logins WHERE access_hash = $1 OR refresh_hash = $1 OR previous_hash = $1 RETURNING person_id, device",
    [hashToken(token)],
  );
  return ended && { personId: ended.person_id, device: ended.device };
}

export interface LoginInfo {
  readonly id: string;
  readonly device: string;
  readonly seenMs: number;
}

export async function loginsOf(queries: Queries, personId: string): Promise<readonly LoginInfo[]> {
  return queries.all<LoginInfo>(
    'SELECT id, device, seen_ms AS "seenMs" FROM logins WHERE person_id = $1 ORDER BY seen_ms DESC LIMIT 100',
    [personId],
  );
}

/** Of that person only. */
export async function removeLogin(queries: Queries, personId: string, id: string): Promise<boolean> {
  return (await queries.run("DELETE FROM logins WHERE id = $1 AND person_id = $2", [id, personId])) > 0;
}
