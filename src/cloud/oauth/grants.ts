// What stands between a person's yes and a laptop's tokens: an authorization code that is good once and for a minute,
// or a device code that is asked for until somebody has typed the other one.
import { createHash } from "node:crypto";
import { AppError } from "#base/error.ts";
import { hashToken, newToken, newUserCode, sameText } from "#cloud/identity/tokens.ts";
import type { Database, Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";

/** chosen. */
const [codeMs, deviceMs] = [60_000, 10 * 60_000];
export const pollSeconds = 5;
/** chosen: what waits for an answer at once, of everybody. */
const maxWaiting = 2000;

export interface AuthorizationRequest {
  readonly personId: string;
  readonly device: string;
  /** S256 of the laptop's verifier. */
  readonly challenge: string;
  readonly redirectUri: string;
}

export async function issueCode(queries: Queries, request: AuthorizationRequest, nowMs: number): Promise<string> {
  const code = newToken("code");
  await forgetExpired(queries, nowMs);
  await queries.run(
    `INSERT INTO grants (hash, kind, state, person_id, device, challenge, redirect_uri, expires_ms, polled_ms)
     VALUES ($1, 'code', 'approved', $2, $3, $4, $5, $6, 0)`,
    [hashToken(code), request.personId, request.device, request.challenge, request.redirectUri, nowMs + codeMs],
  );
  return code;
}

export interface Granted {
  readonly personId: string;
  readonly device: string;
}

interface CodeRow {
  readonly person_id: string;
  readonly device: string;
  readonly challenge: string;
  readonly redirect_uri: string;
}

/** Uses it up, whether or not the rest fits. */
export async function redeemCode(
  queries: Queries,
  sent: { readonly code: string; readonly verifier: string; readonly redirectUri: string },
  nowMs: number,
): Promise<Granted | undefined> {
  const row = await one<CodeRow>(
    queries,
    `DELETE FROM grants WHERE hash = $1 AND kind = 'code' AND expires_ms > $2
     RETURNING person_id, device, challenge, redirect_uri`,
    [hashToken(sent.code), nowMs],
  );
  if (row === undefined || row.redirect_uri !== sent.redirectUri) return undefined;
  const challenge = createHash("sha256").update(sent.verifier).digest("base64url");
  return sameText(challenge, row.challenge) ? { personId: row.person_id, device: row.device } : undefined;
}

export interface DeviceCode {
  readonly deviceCode: string;
  readonly userCode: string;
  readonly expiresSeconds: number;
}

export async function issueDeviceCode(queries: Queries, device: string, nowMs: number): Promise<DeviceCode> {
  await forgetExpired(queries, nowMs);
  const waiting = await one<{ count: number }>(queries, "SELECT COUNT(*) AS count FROM grants");
  if ((waiting?.count ?? 0) >= maxWaiting) throw new AppError("busy", "too many logins are waiting; try again later");
  const [deviceCode, userCode] = [newToken("device"), newUserCode()];
  await queries.run(
    `INSERT INTO grants (hash, kind, user_code, state, device, expires_ms, polled_ms)
     VALUES ($1, 'device', $2, 'waiting', $3, $4, 0)`,
    [hashToken(deviceCode), hashToken(userCode), device, nowMs + deviceMs],
  );
  return { deviceCode, userCode, expiresSeconds: deviceMs / 1000 };
}

/** Which device shows this code. */
export async function findDevice(queries: Queries, userCode: string, nowMs: number): Promise<string | undefined> {
  const row = await one<{ device: string }>(
    queries,
    "SELECT device FROM grants WHERE user_code = $1 AND state = 'waiting' AND expires_ms > $2",
    [hashToken(userCode), nowMs],
  );
  return row?.device;
}

/** The person's yes or no. False when there is nothing to answer any more. */
export async function answerDevice(
  queries: Queries,
  { userCode, personId, allowed }: { readonly userCode: string; readonly personId: string; readonly allowed: boolean },
  nowMs: number,
): Promise<boolean> {
  const changed = await queries.run(
    `UPDATE grants SET state = $1, person_id = $2 WHERE user_code = $3 AND state = 'waiting' AND expires_ms > $4`,
    [allowed ? "approved" : "denied", personId, hashToken(userCode), nowMs],
  );
  return changed > 0;
}

export type DevicePoll = "waiting" | "slow_down" | "denied" | "expired" | Granted;

interface DeviceRow {
  readonly state: string;
  readonly person_id: string | null;
  readonly device: string;
  readonly polled_ms: number;
}

/** A yes is handed out once. */
export function pollDevice(database: Database, deviceCode: string, nowMs: number): Promise<DevicePoll> {
  const hash = hashToken(deviceCode);
  return database.transaction(async (queries) => {
    const row = await one<DeviceRow>(
      queries,
      "SELECT state, person_id, device, polled_ms FROM grants WHERE hash = $1 AND kind = 'device' AND expires_ms > $2",
      [hash, nowMs],
    );
    if (row === undefined) return "expired";
    if (row.state === "waiting") {
      await queries.run("UPDATE grants SET polled_ms = $1 WHERE hash = $2", [nowMs, hash]);
      // a second of grace: clocks and roads are not exact
      return nowMs - row.polled_ms < (pollSeconds - 1) * 1000 ? "slow_down" : "waiting";
    }
    const taken = await queries.run("DELETE FROM grants WHERE hash = $1", [hash]);
    if (taken === 0) return "expired";
    return row.state === "approved" && row.person_id !== null
      ? { personId: row.person_id, device: row.device }
      : "denied";
  });
}

async function forgetExpired(queries: Queries, nowMs: number): Promise<void> {
  await queries.run("DELETE FROM grants WHERE expires_ms <= $1", [nowMs]);
}
