// Who calls, whether this route is theirs, and how often: held against each request before its handler sees it.
import { AppError } from "#base/error.ts";
import { findBrowserSession } from "#cloud/identity/browser-sessions.ts";
import { findPerson } from "#cloud/identity/people.ts";
import { findApiKey } from "#cloud/oauth/api-keys.ts";
import { findLogin } from "#cloud/oauth/logins.ts";
import { checkForm, readCookie } from "./browser.ts";
import { RateLimit } from "./rate-limits.ts";
import type { Caller, Parts, RequestContext, Route } from "./route.ts";

/** chosen: an office behind one address polls and looks; a script that guesses is slower than its guesses are many. */
const requestRate = { burst: 300, perSecond: 30 };

export class Admission {
  readonly #parts: Parts;
  readonly #requests: RateLimit;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#requests = new RateLimit(requestRate, parts.clock);
  }

  /** A way elsewhere for a person who has to log in first; throws for everybody else who may not. */
  async admit(context: RequestContext, route: Route): Promise<Response | undefined> {
    if (route.path === "/healthz" || route.path === "/readyz") return undefined;
    this.#requests.take(context.get("address"));
    const caller = await this.#findCaller(context);
    context.set("caller", caller);
    if (route.access === "person" || route.access === "admin") {
      if (caller === undefined) return logInFirst(context, route);
      if (route.access === "admin" && !caller.person.admin) {
        throw new AppError("denied", "this is for administrators only");
      }
    }
    const changes = route.method !== "GET" && route.access !== "client";
    if (changes && (caller === undefined || caller.by === "cookie")) {
      await checkForm(context, this.#parts.config, this.#parts.key);
    }
    return undefined;
  }

  async #findCaller(context: RequestContext): Promise<Caller | undefined> {
    const { database, clock, config } = this.#parts;
    const nowMs = clock.wallMs();
    const bearer = /^Bearer ([\w-]{1,200})$/.exec(context.req.header("authorization") ?? "")?.[1];
    const found = async (id: string | undefined, by: Caller["by"]): Promise<Caller | undefined> => {
      const person = id === undefined ? undefined : await findPerson(database, id);
      return person && { person, by };
    };
    if (bearer?.startsWith("tpa_") === true) return found(await findLogin(database, bearer, nowMs), "access");
    if (bearer?.startsWith("tpk_") === true) return found(await findApiKey(database, bearer, nowMs), "key");
    if (context.req.header("authorization") !== undefined) return undefined; // never the cookie beside a wrong token
    const cookie = readCookie(context, "session", config);
    return cookie === undefined ? undefined : found(await findBrowserSession(database, cookie, nowMs), "cookie");
  }
}

function logInFirst(context: RequestContext, route: Route): Response {
  const isPage = route.method === "GET" && context.req.header("accept")?.includes("text/html") === true;
  if (!isPage || context.req.header("authorization") !== undefined) {
    throw new AppError("unauthorized", "this needs a login, and the request has none that counts");
  }
  const { pathname, search } = new URL(context.req.url);
  return context.redirect(`/login?next=${encodeURIComponent(pathname + search)}`, 303);
}
