// Keys for automation: they last until somebody removes them, and may what their person may.
import { AppError } from "#base/error.ts";
import { hashToken, newId, newToken } from "#cloud/identity/tokens.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";

/** chosen. */
const maxKeys = 50;
/** chosen: a use is written down when the last one is older. */
const usedStepMs = 60_000;

export interface ApiKeyInfo {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  readonly usedMs: number | null;
}

export async function createApiKey(queries: Queries, personId: string, name: string, nowMs: number): Promise<string> {
  if ((await apiKeysOf(queries, personId)).length >= maxKeys) {
    throw new AppError("conflict", `there are ${maxKeys} keys already; remove one first`);
  }
  const key = newToken("key");
  await queries.run("INSERT INTO api_keys (id, hash, person_id, name, created_ms) VALUES ($1, $2, $3, $4, $5)", [
    newId(),
    hashToken(key),
    personId,
    name.slice(0, 100),
    nowMs,
  ]);
  return key;
}

/** Whose it is. */
export async function findApiKey(queries: Queries, key: string, nowMs: number): Promise<string | undefined> {
  const hash = hashToken(key);
  const found = await one<{ person_id: string }>(queries, "SELECT person_id FROM api_keys WHERE hash = $1", [hash]);
  if (found === undefined) return undefined;
  await queries.run("UPDATE api_keys SET used_ms = $1 WHERE hash = $2 AND (used_ms IS NULL OR used_ms < $3)", [
    nowMs,
    hash,
    nowMs - usedStepMs,
  ]);
  return found.person_id;
}

export async function apiKeysOf(queries: Queries, personId: string): Promise<readonly ApiKeyInfo[]> {
  return queries.all<ApiKeyInfo>(
    'SELECT id, name, created_ms AS "createdMs", used_ms AS "usedMs" FROM api_keys WHERE person_id = $1 ORDER BY created_ms',
    [personId],
  );
}

/** Of that person only. */
export async function removeApiKey(queries: Queries, personId: string, id: string): Promise<boolean> {
  return (await queries.run("DELETE FROM api_keys WHERE id = $1 AND person_id = $2", [id, personId])) > 0;
}
