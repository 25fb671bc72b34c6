// Who may look at a private preview: a browser with a cookie of that preview's own host, got by a one-time code from the
// login or by a share link. The cookie is good for one preview, and ends with what it was got by.
import { AppError } from "#base/error.ts";
import type { Person } from "#cloud/identity/people.ts";
import { hashToken, newId, newToken } from "#cloud/identity/tokens.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import type { Preview } from "./previews.ts";

/** chosen: from the login to the preview's host; a visit by a login; share links of one preview. */
const [codeMs, visitMs, maxShares] = [60_000, 12 * 3600_000, 50];

/** Members of its team; administrators see everything. */
export function mayVisit(person: Pick<Person, "admin" | "teams">, preview: Pick<Preview, "teamId">): boolean {
  return person.admin || person.teams.some(({ id }) => id === preview.teamId);
}

export interface NewCode {
  readonly previewId: string;
  /** Of the login's cookie. */
  readonly sessionHash: string;
  /** Hash of the cookie that the preview's host has given the browser. */
  readonly browser: string;
}

export async function newVisitCode(
  queries: Queries,
  { previewId, sessionHash, browser }: NewCode,
  nowMs: number,
): Promise<string> {
  const code = newToken("code");
  await queries.run("DELETE FROM preview_codes WHERE expires_ms < $1", [nowMs]);
  await queries.run(
    "INSERT INTO preview_codes (hash, preview_id, session_hash, browser, expires_ms) VALUES ($1, $2, $3, $4, $5)",
    [hashToken(code), previewId, sessionHash, browser, nowMs + codeMs],
  );
  return code;
}

/** The cookie of a visit; undefined for a code that does not count here, which is used up all the same. */
export function redeemVisitCode(
  database: Database,
  { code, previewId, browser }: { readonly code: string; readonly previewId: string; readonly browser: string },
  nowMs: number,
): Promise<string | undefined> {
  return database.transaction(async (queries) => {
    const row = await one<{ preview_id: string; session_hash: string; browser: string }>(
      queries,
      "DELETE FROM preview_codes WHERE hash = $1 AND expires_ms > $2 RETURNING preview_id, session_hash, browser",
      [hashToken(code), nowMs],
    );
    if (row === undefined || row.preview_id !== previewId || row.browser !== hashToken(browser)) return undefined;
    return newVisitor(queries, { previewId, sessionHash: row.session_hash, shareId: null, expiresMs: nowMs + visitMs });
  });
}

interface NewVisitor {
  readonly previewId: string;
  readonly sessionHash: string | null;
  readonly shareId: string | null;
  readonly expiresMs: number;
}

async function newVisitor(
  queries: Queries,
  { previewId, sessionHash, shareId, expiresMs }: NewVisitor,
): Promise<string> {
  const token = newToken("visitor");
  await queries.run(
    "INSERT INTO preview_visitors (hash, preview_id, session_hash, share_id, expires_ms) VALUES ($1, $2, $3, $4, $5)",
    [hashToken(token), previewId, sessionHash, shareId, expiresMs],
  );
  return token;
}

/** Who visits, for the list of visitors. */
export interface Visitor {
  readonly who: string;
}

interface VisitorRow {
  readonly share_id: string | null;
  readonly name: string | null;
  readonly admin: number | null;
  readonly member: string | null;
  readonly session_ms: number | null;
  readonly share_ms: number | null;
}

/** By the cookie of this preview's host. */
export async function findVisitor(
  queries: Queries,
  token: string,
  preview: Pick<Preview, "id" | "teamId">,
  nowMs: number,
): Promise<Visitor | undefined> {
  const row = await one<VisitorRow>(
    queries,
    `SELECT preview_visitors.share_id, people.name, people.admin, members.team_id AS member,
       browser_sessions.expires_ms AS session_ms, preview_shares.expires_ms AS share_ms
     FROM preview_visitors
       LEFT JOIN preview_shares ON preview_shares.id = preview_visitors.share_id
       LEFT JOIN browser_sessions ON browser_sessions.hash = preview_visitors.session_hash
       LEFT JOIN people ON people.id = browser_sessions.person_id
       LEFT JOIN members ON members.person_id = people.id AND members.team_id = $3
     WHERE preview_visitors.hash = $1 AND preview_visitors.preview_id = $2 AND preview_visitors.expires_ms > $4`,
    [hashToken(token), preview.id, preview.teamId, nowMs],
  );
  if (row === undefined) return undefined;
  if (row.share_id !== null) return (row.share_ms ?? 0) > nowMs ? { who: "share link" } : undefined;
  const mayStill = row.member !== null || row.admin === 1;
  return mayStill && (row.session_ms ?? 0) > nowMs ? { who: row.name ?? "" } : undefined;
}

export interface Share {
  readonly id: string;
  readonly by: string;
  readonly createdMs: number;
  readonly expiresMs: number;
}

export async function newShare(
  queries: Queries,
  { previewId, personId, lastsMs }: { readonly previewId: string; readonly personId: string; readonly lastsMs: number },
  nowMs: number,
): Promise<{ readonly id: string; readonly token: string }> {
  await queries.run("DELETE FROM preview_shares WHERE expires_ms < $1", [nowMs]);
  if ((await sharesOf(queries, previewId, nowMs)).length >= maxShares) {
    throw new AppError("conflict", `the preview has ${maxShares} share links already`, { hint: "revoke one first" });
  }
  const [id, token] = [newId(), newToken("share")];
  await queries.run(
    `INSERT INTO preview_shares (id, hash, preview_id, person_id, created_ms, expires_ms)
     VALUES ($1, $2, $3, $4, $5, $6)`,
    [id, hashToken(token), previewId, personId, nowMs, nowMs + lastsMs],
  );
  return { id, token };
}

export function sharesOf(queries: Queries, previewId: string, nowMs: number): Promise<readonly Share[]> {
  return queries.all<Share>(
    `SELECT preview_shares.id, people.name AS "by", preview_shares.created_ms AS "createdMs",
       preview_shares.expires_ms AS "expiresMs"
     FROM preview_shares JOIN people ON people.id = preview_shares.person_id
     WHERE preview_shares.preview_id = $1 AND preview_shares.expires_ms > $2 ORDER BY preview_shares.created_ms`,
    [previewId, nowMs],
  );
}

/** Visits by it end, too. */
export async function removeShare(queries: Queries, previewId: string, id: string): Promise<boolean> {
  return (await queries.run("DELETE FROM preview_shares WHERE id = $1 AND preview_id = $2", [id, previewId])) > 0;
}

/** Whether a link's secret counts for this preview. */
export async function findShare(
  queries: Queries,
  token: string,
  previewId: string,
  nowMs: number,
): Promise<{ readonly id: string; readonly expiresMs: number } | undefined> {
  return one(
    queries,
    `SELECT id, expires_ms AS "expiresMs" FROM preview_shares
     WHERE hash = $1 AND preview_id = $2 AND expires_ms > $3`,
    [hashToken(token), previewId, nowMs],
  );
}

/** The cookie of a visit by a share link. */
export function visitByShare(
  queries: Queries,
  share: { readonly id: string; readonly expiresMs: number },
  previewId: string,
): Promise<string> {
  return newVisitor(queries, { previewId, sessionHash: null, shareId: share.id, expiresMs: share.expiresMs });
}
