// The token that a command or the daemon uses: of the login there is, refreshed when it is about to end. One program
// changes the login at a time: a refresh token that is sent twice ends it, and a refresh must not bring back what a logout has removed.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { CloudClient } from "./cloud-client.ts";
import { markEnded, readLogin, readSecret, saveLogin, toSecret } from "./credentials.ts";
import type { CloudSecret, LoginPlaces, StoredLogin } from "./credentials.ts";
import type { OAuthError } from "#wire/cloud-api.ts";

/** chosen: what is left of a token that is handed on; the wait for another program. */
const [marginMs, lockMs, lockStepMs] = [120_000, 20_000, 50];

export interface CurrentLogin {
  readonly url: string;
  readonly name: string;
  /** An access token, or a key. */
  readonly token: string;
}

/** What whoever wants the login has of the laptop. */
export interface LoginUse {
  readonly places: LoginPlaces;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** Undefined when nobody is logged in; `unauthorized` when the login has ended. */
export async function currentLogin(use: LoginUse): Promise<CurrentLogin | undefined> {
  const { places, clock } = use;
  const login = await readLogin(places);
  if (login === undefined) return undefined;
  const secret = await readSecret(places, login);
  if (secret === undefined) throw login.ended === true ? ended(login) : keyringShut(login);
  const usable = tokenOf(secret, clock.wallMs());
  if (usable !== undefined) return { url: login.url, name: login.name, token: usable };
  using _lock = await lockLogin(use);
  return await refresh(use); // with the lock until it has ended
}

function tokenOf(secret: CloudSecret, nowMs: number): string | undefined {
  if ("key" in secret) return secret.key;
  return secret.expiresMs - marginMs > nowMs ? secret.accessToken : undefined;
}

/** Another command may have refreshed it meanwhile, or logged out. */
async function refresh({ places, clock, signal }: LoginUse): Promise<CurrentLogin | undefined> {
  const login = await readLogin(places);
  if (login === undefined) return undefined;
  const secret = await readSecret(places, login);
  if (secret === undefined) throw login.ended === true ? ended(login) : keyringShut(login);
  const usable = tokenOf(secret, clock.wallMs());
  if (usable !== undefined || "key" in secret) return { url: login.url, name: login.name, token: usable ?? "" };
  const client = new CloudClient({ url: login.url, clock, signal });
  const answer = await client.token({ grant_type: "refresh_token", refresh_token: secret.refreshToken });
  if ("error" in answer) {
    if (answer.error !== "invalid_grant") throw notRenewed(login, answer);
    await markEnded(places, login);
    throw ended(login, answer.error_description);
  }
  await saveLogin(places, login, toSecret(answer, clock.wallMs()));
  return { url: login.url, name: login.name, token: answer.access_token };
}

/** With the server's own words, when they say more (it was used in two places). */
function ended({ url }: StoredLogin, why = "the login has ended"): AppError {
  const more = why === "the login has ended" ? "" : `: ${why}`;
  return new AppError("unauthorized", `the login at ${url} has expired${more}`, {
    hint: "log in again: telepresence login",
  });
}

/** The login may be good still: the server, or what stands before it, did not take the question. */
function notRenewed({ url }: StoredLogin, { error, error_description: why = error }: OAuthError): AppError {
  return new AppError("denied", `${url} did not renew the login: ${why}`, {
    hint: "try again; if it stays so, log in again: telepresence login",
  });
}

function keyringShut({ url }: StoredLogin): AppError {
  return new AppError("unauthorized", `the login at ${url} is in the desktop's keyring, which does not give it here`, {
    hint: "unlock the keyring, or log in again: telepresence login",
  });
}

export async function lockLogin({ places, clock, signal }: LoginUse): Promise<Disposable> {
  const until = clock.now() + lockMs;
  for (;;) {
    const lock = await places.tryLock();
    if (lock !== undefined) return lock;
    if (clock.now() > until) throw new AppError("busy", "another command has been changing the login for 20 s");
    await clock.sleep(lockStepMs, signal);
  }
}
