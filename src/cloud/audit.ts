// The audit log: who did what to what, kept a year. Never a token, an address of a page, or what a request held.
import type { Person } from "./identity/people.ts";
import { newId } from "./identity/tokens.ts";
import type { Queries, SqlValue } from "./storage/database.ts";

/** One word a thing, one a deed. Names are stable: people search for them. */
export type AuditAction =
  | "person.created"
  | "person.invited"
  | "invite.removed"
  | "person.promoted"
  | "person.demoted"
  | "person.joined"
  | "person.left"
  | "person.removed"
  | "password.changed"
  | "password.link"
  | "login.browser"
  | "login.failed"
  | "login.laptop"
  | "login.reused"
  | "login.revoked"
  | "key.created"
  | "key.removed"
  | "cluster.registered"
  | "preview.created"
  | "preview.removed"
  | "preview.public"
  | "preview.private"
  | "preview.shared"
  | "preview.unshared"
  | "intercept.watched"
  | "intercept.ended";

export interface AuditEntry {
  readonly action: AuditAction;
  readonly teamId?: string | undefined;
  /** Whoever did it, where somebody is known. */
  readonly person?: { readonly id: string; readonly name: string } | undefined;
  /** What it was done to. */
  readonly subject: string;
}

/** chosen. */
const keptMs = 365 * 24 * 3600 * 1000;

/** Ids of one millisecond have the order in which the entries were made: a login may come right behind the account. */
let made = 0;

function nextId(): string {
  made = (made + 1) % 0x100_0000;
  return made.toString(16).padStart(6, "0") + newId().slice(6);
}

export async function audit(queries: Queries, entry: AuditEntry, nowMs: number): Promise<void> {
  await queries.run(
    "INSERT INTO audit (id, at_ms, team_id, person_id, who, action, subject) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    [
      nextId(),
      nowMs,
      entry.teamId ?? null,
      entry.person?.id ?? null,
      entry.person?.name ?? "",
      entry.action,
      entry.subject.slice(0, 200),
    ],
  );
}

export async function forgetOldAudit(queries: Queries, nowMs: number): Promise<void> {
  await queries.run("DELETE FROM audit WHERE at_ms < $1", [nowMs - keptMs]);
}

export interface AuditRow {
  readonly id: string;
  readonly atMs: number;
  readonly who: string;
  readonly action: string;
  readonly subject: string;
}

export interface AuditPage {
  readonly entries: readonly AuditRow[];
  /** For what is older; undefined at the end. */
  readonly next: string | undefined;
}

/** chosen. */
const pageRows = 100;

/** What this person may see, newest first, older than `before`. */
export async function readAudit(queries: Queries, person: Person, before?: string): Promise<AuditPage> {
  const [, atMs, id = ""] = /^(\d{1,15})-([0-9a-f]{24})$/.exec(before ?? "") ?? [];
  const values: SqlValue[] = [atMs === undefined ? Number.MAX_SAFE_INTEGER : Number(atMs), id];
  const wanted = ["(at_ms < $1 OR (at_ms = $1 AND id < $2))"];
  if (!person.admin) {
    values.push(person.id, ...person.teams.map((team) => team.id));
    const teams = person.teams.map((_, at) => `$${at + 4}`).join(", ");
    wanted.push(teams === "" ? "person_id = $3" : `(person_id = $3 OR team_id IN (${teams}))`);
  }
  const rows = await queries.all<AuditRow>(
    `SELECT id, at_ms AS "atMs", who, action, subject FROM audit WHERE ${wanted.join(" AND ")}
     ORDER BY at_ms DESC, id DESC LIMIT ${pageRows + 1}`,
    values,
  );
  const entries = rows.slice(0, pageRows);
  const last = entries.at(-1);
  return { entries, next: rows.length > pageRows && last !== undefined ? `${last.atMs}-${last.id}` : undefined };
}
