// Changing one's own password, and choosing a new one by a link of an administrator. Either ends the browsers that were
// logged in with the one before; laptops and keys have logins of their own, which stay.
import { html } from "hono/html";
import { AppError, isAppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import { one } from "#cloud/storage/database.ts";
import { fieldOf, formToken } from "#cloud/web/browser.ts";
import { page } from "#cloud/web/page.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf, requireBrowser } from "#cloud/web/route.ts";
import { hidden, problemNotice, startSession } from "./log-in.ts";
import { findManaged } from "./manage-people.ts";
import { findPasswordLink, setPassword, usePasswordLink } from "./password-links.ts";
import { checkPassword, hashPassword } from "./passwords.ts";

/** chosen: tries of the present password by whoever has a person's browser; then one every minute. */
const tryRate = { burst: 10, perSecond: 1 / 60 };

export function passwordRoutes(parts: Parts): readonly Route[] {
  const tries = new RateLimit(tryRate, parts.clock);
  return [
    { method: "GET", path: "/password", access: "person", handle: (context) => ownPage(context, parts) },
    { method: "POST", path: "/password", access: "person", handle: (context) => changeOwn(context, parts, tries) },
    { method: "GET", path: "/password/:token", access: "public", handle: (context) => linkPage(context, parts) },
    { method: "POST", path: "/password/:token", access: "form", handle: (context) => chooseByLink(context, parts) },
  ];
}

const newPasswordField = html`<label for="password">New password, at least 10 characters</label
  ><input id="password" name="password" type="password" autocomplete="new-password" minlength="10" required />`;

async function ownPage(context: RequestContext, { config, database, key }: Parts, problem?: string): Promise<Response> {
  const { subject } = await findManaged(database, callerOf(context).id);
  if (subject === undefined) throw elsewhere();
  return page(context, {
    title: "Change the password",
    status: problem === undefined ? 200 : 403,
    body: html`${problemNotice(problem)}
      <form method="post" action="/password">
        ${hidden("csrf", formToken(context, config, key))}
        <label for="present">Present password of ${subject}</label
        ><input id="present" name="present" type="password" autocomplete="current-password" required autofocus />
        ${newPasswordField}
        <div class="row"><button>Change it</button></div>
      </form>
      <p class="muted">Other browsers are logged out. Laptops and keys stay; remove them on your account's page.</p>`,
  });
}

async function changeOwn(context: RequestContext, parts: Parts, tries: RateLimit): Promise<Response> {
  const { database, clock } = parts;
  const person = callerOf(context);
  requireBrowser(context, "change the password");
  const row = await one<{ password: string | null }>(
    database,
    "SELECT password FROM people WHERE id = $1 AND issuer = ''",
    [person.id],
  );
  if (row === undefined) throw elsewhere();
  tries.take(person.id);
  if (!(await checkPassword(await fieldOf(context, "present"), row.password))) {
    return ownPage(context, parts, "The present password is another one.");
  }
  tries.giveBack(person.id);
  try {
    const hash = await hashPassword(await fieldOf(context, "password"));
    await database.transaction(async (queries) => {
      await setPassword(queries, person.id, hash);
      await audit(queries, { action: "password.changed", person, subject: person.name }, clock.wallMs());
    });
  } catch (error) {
    if (isAppError(error, "usage")) return ownPage(context, parts, `${error.message}.`);
    throw error;
  }
  await startSession(context, parts, person);
  return context.redirect("/", 303);
}

function elsewhere(): AppError {
  return new AppError("not_found", "your account has no password here; it is the identity provider's");
}

async function linkPage(
  context: RequestContext,
  { config, database, clock, key }: Parts,
  problem?: string,
): Promise<Response> {
  const { subject } = await findPasswordLink(database, context.req.param("token") ?? "", clock.wallMs());
  return page(context, {
    title: "Choose a new password",
    status: problem === undefined ? 200 : 403,
    body: html`<p>You log in with the name <strong>${subject}</strong>.</p>
      ${problemNotice(problem)}
      <form method="post">
        ${hidden("csrf", formToken(context, config, key))}${newPasswordField}
        <div class="row"><button>Save it</button></div>
      </form>`,
  });
}

async function chooseByLink(context: RequestContext, parts: Parts): Promise<Response> {
  const { database, clock } = parts;
  const token = context.req.param("token") ?? "";
  await findPasswordLink(database, token, clock.wallMs()); // before the slow part
  try {
    const hash = await hashPassword(await fieldOf(context, "password"));
    const person = await database.transaction(async (queries) => {
      const account = await usePasswordLink(queries, token, clock.wallMs());
      await setPassword(queries, account.id, hash);
      await audit(queries, { action: "password.changed", person: account, subject: account.name }, clock.wallMs());
      return account;
    });
    await startSession(context, parts, person);
    return context.redirect("/", 303);
  } catch (error) {
    if (isAppError(error, "usage")) return linkPage(context, parts, `${error.message}.`);
    throw error;
  }
}
