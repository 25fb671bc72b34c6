// The pages by which a browser logs in: built-in accounts, and the links that make one. What goes wrong says the same
// for a wrong name and a wrong password, takes as long, and is counted by name and by address.
import { html } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";
import { AppError, isAppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import { one } from "#cloud/storage/database.ts";
import { fieldOf, formToken, localPath, readCookie, writeCookie } from "#cloud/web/browser.ts";
import { page } from "#cloud/web/page.ts";
import { RateLimit, tooMany } from "#cloud/web/rate-limits.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { endBrowserSession, openBrowserSession, sessionMs } from "./browser-sessions.ts";
import { acceptInvite, findInvite } from "./invites.ts";
import { checkPassword, hashPassword } from "./passwords.ts";
import { createPerson } from "./people.ts";
import { hashToken } from "./tokens.ts";

/** chosen: wrong passwords for one name, and from one address; then one every minute. */
const [nameRate, addressRate] = [
  { burst: 10, perSecond: 1 / 60 },
  { burst: 50, perSecond: 1 / 20 },
];

export function logInRoutes(parts: Parts): readonly Route[] {
  const byName = new RateLimit(nameRate, parts.clock);
  const byAddress = new RateLimit(addressRate, parts.clock);
  const { config, database, clock } = parts;

  const logIn = async (context: RequestContext): Promise<Response> => {
    const [subject, password] = [
      (await fieldOf(context, "name")).trim().toLowerCase(),
      await fieldOf(context, "password"),
    ];
    const next = localPath(await fieldOf(context, "next"));
    const address = context.get("address");
    const name = hashToken(subject); // a key as long for any name that is sent
    if (!byName.has(name) || !byAddress.has(address)) throw tooMany();
    // before the slow part: guesses that are sent at once count, too
    byName.take(name);
    byAddress.take(address);
    const row = await one<{ id: string; name: string; password: string | null }>(
      database,
      "SELECT id, name, password FROM people WHERE issuer = '' AND subject = $1",
      [subject],
    );
    if (!(await checkPassword(password, row?.password)) || row === undefined) {
      await audit(database, { action: "login.failed", subject }, clock.wallMs());
      return logInPage(context, parts, {
        next,
        name: subject,
        problem: "This name and password do not belong together.",
      });
    }
    byName.giveBack(name);
    byAddress.giveBack(address);
    await startSession(context, parts, row);
    return context.redirect(next, 303);
  };

  const logOut = async (context: RequestContext): Promise<Response> => {
    const token = readCookie(context, "session", config);
    if (token !== undefined) await endBrowserSession(database, token);
    writeCookie(context, config, { name: "session", value: undefined, lastsMs: 0 });
    return context.redirect("/login", 303);
  };

  return [
    {
      method: "GET",
      path: "/login",
      access: "public",
      handle: (context) => logInPage(context, parts, { next: localPath(context.req.query("next")) }),
    },
    { method: "POST", path: "/login", access: "form", handle: logIn },
    { method: "POST", path: "/logout", access: "form", handle: logOut },
    { method: "GET", path: "/invite/:token", access: "public", handle: (context) => invitePage(context, parts, {}) },
    { method: "POST", path: "/invite/:token", access: "form", handle: (context) => accept(context, parts) },
  ];
}

/** The browser is this person's from here on. */
export async function startSession(
  context: RequestContext,
  { config, database, clock }: Parts,
  person: { readonly id: string; readonly name: string },
): Promise<void> {
  const before = readCookie(context, "session", config);
  if (before !== undefined) await endBrowserSession(database, before);
  const token = await openBrowserSession(database, person.id, clock.wallMs());
  writeCookie(context, config, { name: "session", value: token, lastsMs: sessionMs });
  await audit(database, { action: "login.browser", person, subject: person.name }, clock.wallMs());
}

interface LogInPage {
  readonly next: string;
  readonly name?: string;
  readonly problem?: string;
}

function logInPage(
  context: RequestContext,
  { config, key }: Parts,
  { next, name = "", problem }: LogInPage,
): Response | Promise<Response> {
  const body =
    config.oidc === undefined
      ? html`${problemNotice(problem)}
          <form method="post" action="/login">
            ${hidden("csrf", formToken(context, config, key))}${hidden("next", next)}
            <label for="name">Name</label
            ><input
              id="name"
              name="name"
              value="${name}"
              autocomplete="username"
              autocapitalize="none"
              required
              autofocus
            />
            <label for="password">Password</label
            ><input id="password" name="password" type="password" autocomplete="current-password" required />
            <div class="row"><button>Log in</button></div>
          </form>
          <p class="muted">No account yet? Ask an administrator for an invitation.</p>`
      : html`${problemNotice(problem)}
          <p>People log in here with their account at <strong>${config.oidc.issuer.host}</strong>.</p>
          <div class="row"><a class="button" href="/login/oidc?next=${encodeURIComponent(next)}">Continue</a></div>`;
  return page(context, { title: "Log in", status: problem === undefined ? 200 : 403, body });
}

export function hidden(name: string, value: string): HtmlEscapedString | Promise<HtmlEscapedString> {
  return html`<input type="hidden" name="${name}" value="${value}" />`;
}

export function problemNotice(problem: string | undefined): HtmlEscapedString | Promise<HtmlEscapedString> | string {
  return problem === undefined ? "" : html`<p class="notice bad" role="alert">${problem}</p>`;
}

interface InvitePage {
  readonly name?: string;
  readonly subject?: string;
  readonly problem?: string;
}

async function invitePage(
  context: RequestContext,
  { config, database, clock, key }: Parts,
  { name = "", subject = "", problem }: InvitePage,
): Promise<Response> {
  const token = context.req.param("token") ?? "";
  const invite = await findInvite(database, token, clock.wallMs());
  const what = invite.admin ? "You become an administrator of this server." : "Choose a name and a password.";
  if (config.oidc !== undefined) {
    const body = html`<p>${what}</p>
      <div class="row">
        <a class="button" href="/login/oidc?invite=${token}">Continue with ${config.oidc.issuer.host}</a>
      </div>`;
    return page(context, { title: "Welcome", body });
  }
  const body = html`<p>${what}</p>
    ${problemNotice(problem)}
    <form method="post">
      ${hidden("csrf", formToken(context, config, key))}
      <label for="full-name">Your name, as others see it</label
      ><input id="full-name" name="full-name" value="${name}" autocomplete="name" maxlength="100" required autofocus />
      <label for="name">Name to log in with</label
      ><input
        id="name"
        name="name"
        value="${subject}"
        autocomplete="username"
        autocapitalize="none"
        maxlength="64"
        required
      />
      <label for="password">Password, at least 10 characters</label
      ><input id="password" name="password" type="password" autocomplete="new-password" minlength="10" required />
      <div class="row"><button>Create the account</button></div>
    </form>`;
  return page(context, { title: "Welcome", status: problem === undefined ? 200 : 403, body });
}

async function accept(context: RequestContext, parts: Parts): Promise<Response> {
  const { config, database, clock } = parts;
  if (config.oidc !== undefined) throw new AppError("not_found", "accounts are the identity provider's");
  const token = context.req.param("token") ?? "";
  const name = (await fieldOf(context, "full-name")).trim().slice(0, 100);
  const subject = (await fieldOf(context, "name")).trim().toLowerCase();
  try {
    checkNames(name, subject);
    await findInvite(database, token, clock.wallMs()); // before the slow part
    const password = await hashPassword(await fieldOf(context, "password"));
    const id = await database.transaction(async (queries) => {
      const created = await createPerson(
        queries,
        { issuer: "", subject, name, password, admin: false },
        clock.wallMs(),
      );
      await acceptInvite(queries, token, created, clock.wallMs());
      await audit(queries, { action: "person.created", person: { id: created, name }, subject: name }, clock.wallMs());
      return created;
    });
    await startSession(context, parts, { id, name });
    return context.redirect("/", 303);
  } catch (error) {
    if (isAppError(error, "usage") || isAppError(error, "conflict")) {
      return invitePage(context, parts, { name, subject, problem: `${error.message}.` });
    }
    throw error;
  }
}

function checkNames(name: string, subject: string): void {
  if (name === "") throw new AppError("usage", "the name is empty");
  if (/^[a-z0-9][a-z0-9._@-]{0,63}$/.test(subject)) return;
  throw new AppError("usage", "the name to log in with has other characters than letters, digits, dots, dashes and @");
}
