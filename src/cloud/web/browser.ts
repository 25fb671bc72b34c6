// Cookies of browsers and the tokens of our forms. A form's token is bound to a cookie that no other site can set, and
// to the login: it is of no use in another browser, or after the next login.
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { AppError } from "#base/error.ts";
import { sessionMs } from "#cloud/identity/browser-sessions.ts";
import { newToken, sameText, sign } from "#cloud/identity/tokens.ts";
import type { CloudConfig } from "#cloud/config.ts";
import type { RequestContext } from "./route.ts";

type CookieName = "session" | "browser" | "oidc";

/** `__Host-` asks for HTTPS; plain HTTP is this machine's own, to try out. */
function cookieName(name: CookieName, { url }: CloudConfig): string {
  return `${url.protocol === "https:" ? "__Host-" : ""}telepresence-${name}`;
}

export function readCookie(context: RequestContext, name: CookieName, config: CloudConfig): string | undefined {
  return getCookie(context, cookieName(name, config));
}

interface WantedCookie {
  readonly name: CookieName;
  /** Undefined takes it away. */
  readonly value: string | undefined;
  readonly lastsMs: number;
}

export function writeCookie(
  context: RequestContext,
  config: CloudConfig,
  { name, value, lastsMs }: WantedCookie,
): void {
  const secure = config.url.protocol === "https:";
  const options = { path: "/", httpOnly: true, secure, sameSite: "Lax" } as const;
  if (value === undefined) deleteCookie(context, cookieName(name, config), options);
  else setCookie(context, cookieName(name, config), value, { ...options, maxAge: Math.floor(lastsMs / 1000) });
}

/** The token for the forms of a page; gives the browser its cookie when it has none. */
export function formToken(context: RequestContext, config: CloudConfig, key: string): string {
  const known = context.get("browser") ?? readCookie(context, "browser", config);
  const browser = known ?? newToken("browser");
  if (known === undefined) writeCookie(context, config, { name: "browser", value: browser, lastsMs: sessionMs });
  context.set("browser", browser);
  return tokenOf(context, config, { browser, key });
}

function tokenOf(
  context: RequestContext,
  config: CloudConfig,
  { browser, key }: { readonly browser: string; readonly key: string },
): string {
  return sign(key, `form\n${browser}\n${readCookie(context, "session", config) ?? ""}`);
}

/** Of every request of a browser that changes something: sent by a page of ours, with its token. */
export async function checkForm(context: RequestContext, config: CloudConfig, key: string): Promise<void> {
  const origin = context.req.header("origin");
  const site = context.req.header("sec-fetch-site");
  const ours = origin === undefined ? site === "same-origin" : origin === config.url.origin;
  if (!ours) throw new AppError("denied", "the request came from another site");
  const browser = readCookie(context, "browser", config);
  const given = context.req.header("x-csrf-token") ?? (await fieldOf(context, "csrf"));
  if (browser !== undefined && sameText(given, tokenOf(context, config, { browser, key }))) return;
  throw new AppError("denied", "the form is too old, or the browser keeps no cookies; go back, reload and try again");
}

/** One text field of a form; "" when it is not there. */
export async function fieldOf(context: RequestContext, name: string): Promise<string> {
  const type = context.req.header("content-type") ?? "";
  if (!/^application\/x-www-form-urlencoded\b/i.test(type)) return "";
  const value = (await context.req.parseBody())[name];
  return typeof value === "string" ? value : "";
}

/** A path of this server, or its first page: never another site's. */
export function localPath(text: string | undefined): string {
  if (text === undefined || !/^\/(?![/\\])[\x21-\x7e]*$/.test(text) || text.includes("\\")) return "/";
  return text;
}
