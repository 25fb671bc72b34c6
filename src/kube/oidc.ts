// The `oidc` auth-provider of older kubeconfigs: an id token, renewed with the refresh token when it has expired.
// The renewed token is kept in memory; the kubeconfig is never written.
import { AppError } from "#base/error.ts";
import { isFields, text } from "./kubeconfig.ts";

type Config = Readonly<Record<string, string>>;

const renewed = new WeakMap<Config, string>();

export async function refreshOidc(config: Config, nowMs: number, signal: AbortSignal): Promise<string> {
  const current = renewed.get(config) ?? config["id-token"];
  if (current !== undefined && expiryMs(current) > nowMs + 10_000) return current;
  const issuer = config["idp-issuer-url"];
  const refreshToken = config["refresh-token"];
  if (issuer === undefined || refreshToken === undefined) throw expired("it has no refresh-token");
  const token = await requestToken(config, issuer, refreshToken, signal);
  renewed.set(config, token);
  return token;
}

async function requestToken(
  config: Config,
  issuer: string,
  refreshToken: string,
  signal: AbortSignal,
): Promise<string> {
  try {
    const discovery = await fetchJson(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`, { signal });
    const endpoint = text(discovery["token_endpoint"]);
    if (endpoint === undefined) throw new Error("the issuer names no token endpoint");
    const body = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: refreshToken,
      client_id: config["client-id"] ?? "",
    });
    if (config["client-secret"] !== undefined) body.set("client_secret", config["client-secret"]);
    const answer = await fetchJson(endpoint, { method: "POST", body, signal });
    const idToken = text(answer["id_token"]);
    if (idToken === undefined) throw new Error("the issuer gave no id token");
    return idToken;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw expired((error as Error).message, error);
  }
}

async function fetchJson(url: string, init: RequestInit): Promise<Readonly<Record<string, unknown>>> {
  const response = await fetch(url, init);
  if (!response.ok) throw new Error(`${new URL(url).host} answered HTTP ${response.status}`);
  const body: unknown = await response.json();
  if (!isFields(body)) throw new Error(`${new URL(url).host} did not answer with an object`);
  return body;
}

function expiryMs(jwt: string): number {
  try {
    const claims: unknown = JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString("utf8"));
    return isFields(claims) && typeof claims["exp"] === "number" ? claims["exp"] * 1000 : 0;
  } catch {
    return 0; // not a token we can read: renew it
  }
}

function expired(why: string, cause?: unknown): AppError {
  return new AppError(
    "unauthorized",
    `the OpenID Connect token of the kubeconfig has expired and was not renewed: ${why}`,
    {
      cause,
      hint: "log in to the cluster again",
    },
  );
}
