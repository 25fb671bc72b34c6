// The audit log: who did what to what, kept a year. Never a token, an address of a page, or what a request held.
import type { Queries } from "./storage/database.ts";
import { newId } from "./identity/tokens.ts";

/** One word a thing, one a deed. Names are stable: people search for them. */
export type AuditAction =
  | "person.created"
  | "person.invited"
  | "login.browser"
  | "login.failed"
  | "login.laptop"
  | "login.reused"
  | "login.revoked"
  | "key.created"
  | "key.removed"
  | "preview.created"
  | "preview.removed"
  | "preview.public"
  | "preview.private"
  | "preview.shared"
  | "preview.unshared"
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

export async function audit(queries: Queries, entry: AuditEntry, nowMs: number): Promise<void> {
  await queries.run(
    "INSERT INTO audit (id, at_ms, team_id, person_id, who, action, subject) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    [
      newId(),
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
