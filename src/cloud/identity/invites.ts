// Links by which people come in, each used once. The first administrator's is printed when the server starts and nobody
// is one yet; it is an invitation without an inviter.
import { AppError } from "#base/error.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import { firstTeam, hasAdmin, joinTeam, provideTeam } from "./people.ts";
import { hashToken, newToken } from "./tokens.ts";

const dayMs = 24 * 3600 * 1000;
/** chosen: the first administrator's link, and a colleague's. */
const [firstMs, inviteMs] = [dayMs, 7 * dayMs];

export interface Invite {
  readonly teamId: string | undefined;
  readonly admin: boolean;
}

/** Undefined when there is an administrator. Earlier links of the kind end. */
export async function inviteFirstAdmin(queries: Queries, nowMs: number): Promise<string | undefined> {
  if (await hasAdmin(queries)) return undefined;
  await queries.run("DELETE FROM invites WHERE invited_by IS NULL");
  return insert(queries, { teamId: undefined, admin: true }, { by: null, nowMs, lastsMs: firstMs });
}

export function invite(queries: Queries, wanted: Invite, by: string, nowMs: number): Promise<string> {
  return insert(queries, wanted, { by, nowMs, lastsMs: inviteMs });
}

async function insert(
  queries: Queries,
  { teamId, admin }: Invite,
  { by, nowMs, lastsMs }: { readonly by: string | null; readonly nowMs: number; readonly lastsMs: number },
): Promise<string> {
  const token = newToken("invite");
  await queries.run("DELETE FROM invites WHERE expires_ms < $1", [nowMs]);
  await queries.run(
    "INSERT INTO invites (hash, team_id, admin, invited_by, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6)",
    [hashToken(token), teamId ?? null, admin ? 1 : 0, by, nowMs, nowMs + lastsMs],
  );
  return token;
}

/** The first administrator's until there is one, a colleague's while whoever invited is one. */
const good = `hash = $1 AND expires_ms > $2 AND CASE WHEN invited_by IS NULL
    THEN NOT EXISTS (SELECT 1 FROM people WHERE people.admin = 1)
    ELSE EXISTS (SELECT 1 FROM people WHERE people.id = invites.invited_by AND people.admin = 1) END`;

interface InviteRow {
  readonly team_id: string | null;
  readonly admin: number;
}

/** Looks without using it up. */
export async function findInvite(queries: Queries, token: string, nowMs: number): Promise<Invite> {
  const found = await one<InviteRow>(queries, `SELECT team_id, admin FROM invites WHERE ${good}`, [
    hashToken(token),
    nowMs,
  ]);
  return read(found);
}

/** Uses it up: `personId` is in its team now, and an administrator if it says so. Inside a transaction. */
export async function acceptInvite(queries: Queries, token: string, personId: string, nowMs: number): Promise<Invite> {
  const found = await one<InviteRow>(queries, `DELETE FROM invites WHERE ${good} RETURNING team_id, admin`, [
    hashToken(token),
    nowMs,
  ]);
  const accepted = read(found);
  if (accepted.admin) await queries.run("UPDATE people SET admin = 1 WHERE id = $1", [personId]);
  const teamId = accepted.teamId ?? (await provideTeam(queries, firstTeam, nowMs)).id;
  await joinTeam(queries, personId, teamId);
  return accepted;
}

export interface PendingInvite {
  /** Names it, and opens nothing. */
  readonly id: string;
  readonly team: string;
  readonly admin: boolean;
  readonly by: string;
  readonly expiresMs: number;
}

/** Those that would be accepted now; the first administrator's is nobody's to see. */
export async function pendingInvites(queries: Queries, nowMs: number): Promise<readonly PendingInvite[]> {
  const rows = await queries.all<Omit<PendingInvite, "admin"> & { readonly admin: number }>(
    `SELECT hash AS id, COALESCE(teams.name, '') AS team, invites.admin, people.name AS "by", expires_ms AS "expiresMs"
     FROM invites JOIN people ON people.id = invited_by AND people.admin = 1
     LEFT JOIN teams ON teams.id = invites.team_id WHERE expires_ms > $1 ORDER BY expires_ms LIMIT 500`,
    [nowMs],
  );
  return rows.map((row) => ({ ...row, team: row.team === "" ? firstTeam : row.team, admin: row.admin !== 0 }));
}

/** The name of the team it was to. */
export async function removeInvite(queries: Queries, id: string): Promise<string | undefined> {
  const removed = await one<{ team_id: string | null }>(
    queries,
    "DELETE FROM invites WHERE hash = $1 AND invited_by IS NOT NULL RETURNING team_id",
    [id],
  );
  if (removed === undefined) return undefined;
  const team = await one<{ name: string }>(queries, "SELECT name FROM teams WHERE id = $1", [removed.team_id]);
  return team?.name ?? firstTeam;
}

function read(row: InviteRow | undefined): Invite {
  if (row !== undefined) return { teamId: row.team_id ?? undefined, admin: row.admin !== 0 };
  throw new AppError("not_found", "this invitation was used or has expired; ask for another one");
}
