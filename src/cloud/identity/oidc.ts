// Logging in by an outside OpenID Connect provider: authorization code with PKCE, state and nonce. What the browser
// brings back must be of the way it was sent: a signed cookie holds that. Who somebody is is the issuer's subject, never
// an address that a provider may give to another person.
import * as oidc from "openid-client";
import { AppError, isAppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import type { OidcConfig } from "#cloud/config.ts";
import { isLoopbackName } from "#cloud/config.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { one } from "#cloud/storage/database.ts";
import { localPath, readCookie, writeCookie } from "#cloud/web/browser.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { acceptInvite } from "./invites.ts";
import { startSession } from "./log-in.ts";
import { createPerson, setTeams } from "./people.ts";
import { sameText, sign } from "./tokens.ts";

/** chosen: how long a person may be at the provider. */
const awayMs = 15 * 60_000;
/** chosen: what of the provider's claims is kept. */
const [maxGroups, maxText] = [200, 100];
const callbackPath = "/login/oidc/callback";

export function oidcRoutes(parts: Parts): readonly Route[] {
  const provider = new Provider(parts.config.oidc);
  return [
    { method: "GET", path: "/login/oidc", access: "public", handle: (context) => leave(context, parts, provider) },
    { method: "GET", path: callbackPath, access: "public", handle: (context) => comeBack(context, parts, provider) },
  ];
}

/** Discovered when somebody first logs in, and again after a failure. */
class Provider {
  readonly #config: OidcConfig | undefined;
  #discovered: Promise<oidc.Configuration> | undefined;

  constructor(config: OidcConfig | undefined) {
    this.#config = config;
  }

  get config(): OidcConfig {
    if (this.#config === undefined) throw new AppError("not_found", "people log in here with a name and a password");
    return this.#config;
  }

  async discover(): Promise<oidc.Configuration> {
    const { issuer, clientId, clientSecret } = this.config;
    const insecure = issuer.protocol === "http:" && isLoopbackName(issuer.hostname);
    const execute = insecure ? [oidc.allowInsecureRequests] : [];
    this.#discovered ??= oidc.discovery(issuer, clientId, clientSecret, undefined, { execute, timeout: 10 });
    try {
      return await this.#discovered;
    } catch (cause) {
      this.#discovered = undefined;
      throw new AppError("unreachable", `the identity provider ${issuer.host} does not answer as one`, { cause });
    }
  }
}

interface Away {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
  readonly next: string;
  readonly invite: string;
  readonly expiresMs: number;
}

async function leave(context: RequestContext, { config, clock, key }: Parts, provider: Provider): Promise<Response> {
  const discovered = await provider.discover();
  const away: Away = {
    state: oidc.randomState(),
    nonce: oidc.randomNonce(),
    verifier: oidc.randomPKCECodeVerifier(),
    next: localPath(context.req.query("next")),
    invite: context.req.query("invite") ?? "",
    expiresMs: clock.wallMs() + awayMs,
  };
  const text = Buffer.from(JSON.stringify(away)).toString("base64url");
  writeCookie(context, config, { name: "oidc", value: `${text}.${sign(key, `oidc\n${text}`)}`, lastsMs: awayMs });
  const target = oidc.buildAuthorizationUrl(discovered, {
    redirect_uri: `${config.url.origin}${callbackPath}`,
    scope: "openid profile email",
    state: away.state,
    nonce: away.nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(away.verifier),
    code_challenge_method: "S256",
  });
  return context.redirect(target.href, 303);
}

function readAway(context: RequestContext, { config, clock, key }: Parts): Away {
  const [text = "", signature = ""] = (readCookie(context, "oidc", config) ?? "").split(".");
  writeCookie(context, config, { name: "oidc", value: undefined, lastsMs: 0 });
  if (sameText(signature, sign(key, `oidc\n${text}`))) {
    const away = JSON.parse(Buffer.from(text, "base64url").toString()) as Away; // what we signed is ours
    if (away.expiresMs > clock.wallMs()) return away;
  }
  throw new AppError("denied", "this login was not begun in this browser, or took too long; go back and try again");
}

async function comeBack(context: RequestContext, parts: Parts, provider: Provider): Promise<Response> {
  const { config, database, clock } = parts;
  const discovered = await provider.discover();
  const away = readAway(context, parts);
  const claims = await redeem(context, { discovered, provider, away, origin: config.url.origin });
  const nowMs = clock.wallMs();
  const person = await database.transaction(async (queries) => {
    const found = await provideAccount(queries, readAccount(claims, provider.config), nowMs);
    if (away.invite !== "") await acceptInvite(queries, away.invite, found.id, nowMs);
    return found;
  });
  await startSession(context, parts, person);
  return context.redirect(away.next, 303);
}

interface Redeeming {
  readonly discovered: oidc.Configuration;
  readonly provider: Provider;
  readonly away: Away;
  readonly origin: string;
}

type Claims = Readonly<Record<string, unknown>>;

/** The ID token's claims, and those that only the provider's userinfo has. */
async function redeem(context: RequestContext, { discovered, provider, away, origin }: Redeeming): Promise<Claims> {
  const { search } = new URL(context.req.url);
  try {
    const tokens = await oidc.authorizationCodeGrant(discovered, new URL(`${origin}${callbackPath}${search}`), {
      pkceCodeVerifier: away.verifier,
      expectedState: away.state,
      expectedNonce: away.nonce,
      idTokenExpected: true,
    });
    const claims = tokens.claims();
    if (claims === undefined) throw new AppError("denied", "the identity provider has not said who this is");
    if (claims[provider.config.groupsClaim] !== undefined) return claims;
    if (discovered.serverMetadata().userinfo_endpoint === undefined) return claims;
    return { ...claims, ...(await oidc.fetchUserInfo(discovered, tokens.access_token, claims.sub)) };
  } catch (cause) {
    if (isAppError(cause)) throw cause;
    throw new AppError("denied", "the identity provider did not log this browser in", { cause });
  }
}

interface Account {
  readonly issuer: string;
  readonly subject: string;
  readonly name: string;
  readonly email: string | undefined;
  readonly groups: readonly string[];
  /** Undefined where the provider does not decide it. */
  readonly admin: boolean | undefined;
}

function readAccount(claims: Claims, { groupsClaim, adminGroup }: OidcConfig): Account {
  const text = (name: string): string | undefined => {
    const value = claims[name];
    return typeof value === "string" && value !== "" ? value.slice(0, maxText) : undefined;
  };
  const listed = claims[groupsClaim];
  const groups = (Array.isArray(listed) ? listed : [])
    .filter((group): group is string => typeof group === "string" && group !== "" && group.length <= maxText)
    .slice(0, maxGroups);
  const subject = String(claims["sub"]);
  return {
    issuer: String(claims["iss"]),
    subject,
    name: text("name") ?? text("preferred_username") ?? text("email") ?? subject.slice(0, maxText),
    email: text("email"),
    groups,
    admin: adminGroup === undefined ? undefined : groups.includes(adminGroup),
  };
}

/** Name, teams and rights are what the provider says at each login. */
async function provideAccount(
  queries: Queries,
  { issuer, subject, name, email, groups, admin }: Account,
  nowMs: number,
): Promise<{ readonly id: string; readonly name: string }> {
  const known = await one<{ id: string; admin: number }>(
    queries,
    "SELECT id, admin FROM people WHERE issuer = $1 AND subject = $2",
    [issuer, subject],
  );
  const id = known?.id ?? (await createPerson(queries, { issuer, subject, name, email, admin: false }, nowMs));
  await queries.run("UPDATE people SET name = $1, email = $2, admin = $3 WHERE id = $4", [
    name,
    email ?? null,
    (admin ?? known?.admin === 1) ? 1 : 0,
    id,
  ]);
  await setTeams(queries, id, groups, nowMs);
  if (known === undefined)
    await audit(queries, { action: "person.created", person: { id, name }, subject: name }, nowMs);
  return { id, name };
}
