// The first page of a person: who they are here, the laptops and keys that are logged in as them, and, for
// administrators, invitations.
import { html } from "hono/html";
import { AppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import { apiKeysOf, createApiKey, removeApiKey } from "#cloud/oauth/api-keys.ts";
import { loginsOf, removeLogin } from "#cloud/oauth/logins.ts";
import { fieldOf, formToken } from "#cloud/web/browser.ts";
import { formatDay, page, removableTable } from "#cloud/web/page.ts";
import type { Markup } from "#cloud/web/page.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf, requireBrowser } from "#cloud/web/route.ts";
import { cloudPaths } from "#wire/cloud-api.ts";
import type { MeAnswer } from "#wire/cloud-api.ts";
import { hidden } from "./log-in.ts";
import { invite } from "./invites.ts";
import { provideTeam, visibleTeams } from "./people.ts";
import type { Person } from "./people.ts";

export function accountRoutes(parts: Parts): readonly Route[] {
  const { database, clock } = parts;
  const changed = (context: RequestContext, found: boolean): Response => {
    if (!found) throw new AppError("not_found", "there is nothing of this name among your things");
    return context.redirect("/", 303);
  };
  return [
    { method: "GET", path: "/", access: "person", handle: (context) => accountPage(context, parts) },
    {
      method: "GET",
      path: cloudPaths.me,
      access: "person",
      handle: (context) => context.json(describeMe(callerOf(context))),
    },
    { method: "POST", path: "/keys", access: "person", handle: (context) => newKey(context, parts) },
    {
      method: "POST",
      path: "/keys/:id/remove",
      access: "person",
      handle: async (context) => {
        const person = callerOf(context);
        const found = await removeApiKey(database, person.id, context.req.param("id") ?? "");
        if (found) await audit(database, { action: "key.removed", person, subject: person.name }, clock.wallMs());
        return changed(context, found);
      },
    },
    {
      method: "POST",
      path: "/logins/:id/remove",
      access: "person",
      handle: async (context) => {
        const person = callerOf(context);
        const found = await removeLogin(database, person.id, context.req.param("id") ?? "");
        if (found) await audit(database, { action: "login.revoked", person, subject: person.name }, clock.wallMs());
        return changed(context, found);
      },
    },
    { method: "POST", path: "/invites", access: "admin", handle: (context) => newInvite(context, parts) },
  ];
}

function describeMe({ name, email, admin, teams }: Person): MeAnswer {
  return { name, ...(email === undefined ? {} : { email }), admin, teams: teams.map((team) => ({ ...team })) };
}

async function accountPage(context: RequestContext, { config, database, key }: Parts): Promise<Response> {
  const person = callerOf(context);
  const csrf = formToken(context, config, key);
  const laptops = (await loginsOf(database, person.id)).map(({ id, device, seenMs }) => {
    return { name: device, when: `seen ${formatDay(seenMs)}`, path: `/logins/${id}/remove` };
  });
  const keys = (await apiKeysOf(database, person.id)).map(({ id, name, usedMs }) => {
    return { name, when: usedMs === null ? "never used" : `used ${formatDay(usedMs)}`, path: `/keys/${id}/remove` };
  });
  const body = html`<p>
      Logged in as <strong>${person.name}</strong>${person.admin ? ", an administrator" : ""}.
      ${person.teams.length > 0 ? html`Teams: ${person.teams.map((team) => team.name).join(", ")}.` : ""}
    </p>
    <p class="muted">On your laptop: <code>telepresence login --cloud-url ${config.url.origin}</code></p>
    <nav class="row" aria-label="More">
      <a href="/dashboard">Dashboard</a>
      ${config.oidc === undefined ? html`<a href="/password">Change the password</a>` : ""}
      ${person.admin ? html`<a href="/people">People</a>` : ""}
      <a href="/audit">Audit log</a>
    </nav>
    <h2>Laptops</h2>
    ${laptops.length === 0 ? html`<p class="muted">None is logged in.</p>` : removableTable(laptops, csrf)}
    <h2>Keys for automation</h2>
    ${keys.length === 0 ? "" : removableTable(keys, csrf)}
    <form method="post" action="/keys">
      ${hidden("csrf", csrf)} <label for="key-name">What is the key for?</label
      ><input id="key-name" name="name" maxlength="100" required />
      <div class="row"><button class="quiet">Create a key</button></div>
    </form>
    ${person.admin && config.oidc === undefined ? await invitation(database, person, csrf) : ""}
    <form method="post" action="/logout">
      ${hidden("csrf", csrf)}
      <div class="row"><button class="quiet">Log out</button></div>
    </form>`;
  return page(context, { title: "Your account", body });
}

async function invitation(database: Parts["database"], person: Person, csrf: string): Promise<Markup> {
  const teams = await visibleTeams(database, person);
  return html`<h2>Invite somebody</h2>
    <form method="post" action="/invites">
      ${hidden("csrf", csrf)} <label for="team">Team</label
      ><input id="team" name="team" list="teams" value="${teams[0]?.name ?? ""}" maxlength="100" required />
      <datalist id="teams">${teams.map((team) => html`<option value="${team.name}"></option>`)}</datalist>
      <label><input type="checkbox" name="admin" value="yes" />Administrator</label>
      <div class="row"><button class="quiet">Make a link</button></div>
    </form>`;
}

async function newKey(context: RequestContext, { database, clock }: Parts): Promise<Response> {
  const person = callerOf(context);
  requireBrowser(context, "make keys");
  const name = (await fieldOf(context, "name")).trim() || "unnamed";
  const key = await createApiKey(database, person.id, name, clock.wallMs());
  await audit(database, { action: "key.created", person, subject: name }, clock.wallMs());
  return page(context, {
    title: "A new key",
    body: html`<p>This is shown once. Whoever has it may do what you may.</p>
      <p class="notice"><code>${key}</code></p>
      <p class="muted">Use it with <code>telepresence login --api-key -</code>, which reads it from standard input.</p>
      <div class="row"><a class="button" href="/">Done</a></div>`,
  });
}

async function newInvite(context: RequestContext, { config, database, clock }: Parts): Promise<Response> {
  const person = callerOf(context);
  requireBrowser(context, "invite somebody");
  const teamName = (await fieldOf(context, "team")).trim().slice(0, 100);
  if (teamName === "") throw new AppError("usage", "the team has no name");
  const admin = (await fieldOf(context, "admin")) === "yes";
  const team = await provideTeam(database, teamName, clock.wallMs());
  const token = await invite(database, { teamId: team.id, admin }, person.id, clock.wallMs());
  await audit(database, { action: "person.invited", teamId: team.id, person, subject: teamName }, clock.wallMs());
  return page(context, {
    title: "An invitation",
    body: html`<p>Send this link to one person. It works once, for a week.</p>
      <p class="notice"><code>${config.url.origin}/invite/${token}</code></p>
      <div class="row"><a class="button" href="/">Done</a></div>`,
  });
}
