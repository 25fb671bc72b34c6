// People, as administrators see and change them: rights, teams, logins, a new password, the end; and invitations that
// nobody has used yet. Every change is a person's in a browser: a key or a token makes nobody an administrator.
import { html } from "hono/html";
import { AppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import type { AuditAction } from "#cloud/audit.ts";
import { apiKeysOf, removeApiKey } from "#cloud/oauth/api-keys.ts";
import { loginsOf, removeLogin } from "#cloud/oauth/logins.ts";
import type { Queries } from "#cloud/storage/database.ts";
import { fieldOf, formToken } from "#cloud/web/browser.ts";
import { formatDay, page, removableTable } from "#cloud/web/page.ts";
import type { Markup } from "#cloud/web/page.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf, requireBrowser } from "#cloud/web/route.ts";
import { hidden } from "./log-in.ts";
import { pendingInvites, removeInvite } from "./invites.ts";
import { endAllLogins, findManaged, leaveTeam, listPeople, manage, maxListed } from "./manage-people.ts";
import { removePerson, setAdmin } from "./manage-people.ts";
import type { ListedPerson, ManagedPerson } from "./manage-people.ts";
import { makePasswordLink } from "./password-links.ts";
import { joinTeam, provideTeam, visibleTeams } from "./people.ts";

export function peopleRoutes(parts: Parts): readonly Route[] {
  const post = (path: string, handle: Route["handle"]): Route => ({ method: "POST", path, access: "admin", handle });
  const change = (path: string, deed: Deed): Route => post(path, (context) => apply(context, parts, deed));
  return [
    { method: "GET", path: "/people", access: "admin", handle: (context) => peoplePage(context, parts) },
    { method: "GET", path: "/people/:id", access: "admin", handle: (context) => personPage(context, parts) },
    change("/people/:id/admin", changeAdmin),
    change("/people/:id/teams", addToTeam),
    change("/people/:id/teams/:team/remove", takeFromTeam),
    change("/people/:id/logins/:login/remove", async ({ context, queries, person }) => {
      const found = await removeLogin(queries, person.id, context.req.param("login") ?? "");
      return found ? { action: "login.revoked" } : undefined;
    }),
    change("/people/:id/keys/:key/remove", async ({ context, queries, person }) => {
      const found = await removeApiKey(queries, person.id, context.req.param("key") ?? "");
      return found ? { action: "key.removed" } : undefined;
    }),
    change("/people/:id/log-out", async ({ queries, person }) => {
      await endAllLogins(queries, person.id);
      return { action: "login.revoked" };
    }),
    change("/people/:id/remove", async ({ context, queries, person }) => {
      refuseSelf(context, person, "remove yourself");
      await removePerson(queries, person.id);
      return { action: "person.removed", next: "/people" };
    }),
    post("/people/:id/password", (context) => passwordLink(context, parts)),
    post("/invites/:id/remove", (context) => takeInviteBack(context, parts)),
  ];
}

interface Doing {
  readonly context: RequestContext;
  readonly parts: Parts;
  readonly queries: Queries;
  readonly person: ManagedPerson;
}

interface Done {
  readonly action: AuditAction;
  readonly teamId?: string;
  /** Beside the person's name, for the audit log. */
  readonly detail?: string;
  readonly next?: string;
}

/** Undefined where what it was asked for is not there. */
type Deed = (doing: Doing) => Promise<Done | undefined>;

async function apply(context: RequestContext, parts: Parts, deed: Deed): Promise<Response> {
  const { database, clock } = parts;
  const by = callerOf(context);
  requireBrowser(context, "manage people");
  const id = context.req.param("id") ?? "";
  const next = await manage(database, by, id, async (queries, person) => {
    const done = await deed({ context, parts, queries, person });
    if (done === undefined) throw new AppError("not_found", `there is nothing of this name among ${person.name}'s`);
    const { action, teamId, detail } = done;
    const subject = detail === undefined ? person.name : `${person.name}, ${detail}`;
    await audit(queries, { action, teamId, person: by, subject }, clock.wallMs());
    return done.next;
  });
  return context.redirect(next ?? `/people/${id}`, 303);
}

function refuseSelf(context: RequestContext, person: ManagedPerson, deed: string): void {
  if (callerOf(context).id !== person.id) return;
  throw new AppError("conflict", `you cannot ${deed}; another administrator has to do it`);
}

async function changeAdmin({ context, parts, queries, person }: Doing): Promise<Done> {
  if (rightsAreElsewhere(parts, person)) throw new AppError("conflict", "who is one is the identity provider's to say");
  const admin = (await fieldOf(context, "admin")) === "yes";
  if (!admin) refuseSelf(context, person, "take your own rights");
  await setAdmin(queries, person.id, admin);
  return { action: admin ? "person.promoted" : "person.demoted" };
}

async function addToTeam({ context, parts, queries, person }: Doing): Promise<Done> {
  refuseProvided(person);
  const name = (await fieldOf(context, "team")).trim().slice(0, 100);
  if (name === "") throw new AppError("usage", "the team has no name");
  const team = await provideTeam(queries, name, parts.clock.wallMs());
  await joinTeam(queries, person.id, team.id);
  return { action: "person.joined", teamId: team.id, detail: team.name };
}

async function takeFromTeam({ context, queries, person }: Doing): Promise<Done | undefined> {
  refuseProvided(person);
  const team = await leaveTeam(queries, person.id, context.req.param("team") ?? "");
  return team && { action: "person.left", teamId: team.id, detail: team.name };
}

function refuseProvided({ subject }: ManagedPerson): void {
  if (subject === undefined) throw new AppError("conflict", "the teams of this person are the identity provider's");
}

function rightsAreElsewhere({ config }: Parts, { subject }: ManagedPerson): boolean {
  return subject === undefined && config.oidc?.adminGroup !== undefined;
}

async function passwordLink(context: RequestContext, { config, database, clock }: Parts): Promise<Response> {
  const by = callerOf(context);
  requireBrowser(context, "make links");
  const nowMs = clock.wallMs();
  const { name, token } = await manage(database, by, context.req.param("id") ?? "", async (queries, person) => {
    if (person.subject === undefined) {
      throw new AppError("conflict", "this person has no password here; the account is the identity provider's");
    }
    await audit(queries, { action: "password.link", person: by, subject: person.name }, nowMs);
    return { name: person.name, token: await makePasswordLink(queries, person.id, by.id, nowMs) };
  });
  return page(context, {
    title: "A new password",
    body: html`<p>Send this link to ${name}. It works once, for a day; the present password stays until then.</p>
      <p class="notice"><code>${config.url.origin}/password/${token}</code></p>
      <div class="row"><a class="button" href="/people/${context.req.param("id")}">Done</a></div>`,
  });
}

async function takeInviteBack(context: RequestContext, { database, clock }: Parts): Promise<Response> {
  const person = callerOf(context);
  requireBrowser(context, "take an invitation back");
  const team = await removeInvite(database, context.req.param("id") ?? "");
  if (team === undefined) throw new AppError("not_found", "this invitation was used, or has expired");
  await audit(database, { action: "invite.removed", person, subject: team }, clock.wallMs());
  return context.redirect("/people", 303);
}

async function peoplePage(context: RequestContext, { config, database, clock, key }: Parts): Promise<Response> {
  const search = (context.req.query("q") ?? "").slice(0, 100);
  const found = await listPeople(database, search);
  const people = found.slice(0, maxListed);
  const invites = (await pendingInvites(database, clock.wallMs())).map(({ id, team, admin, by, expiresMs }) => {
    const name = `${team}${admin ? ", as an administrator" : ""}`;
    return { name, when: `by ${by}, until ${formatDay(expiresMs)}`, path: `/invites/${id}/remove` };
  });
  const body = html`<form method="get" action="/people" role="search">
      <label for="q">Find by name or address</label><input id="q" name="q" type="search" value="${search}" />
    </form>
    ${people.length === 0 ? html`<p class="muted">Nobody has this name.</p>` : peopleTable(people)}
    ${found.length > people.length ? html`<p class="muted">There are more; search for a name.</p>` : ""}
    <h2>Invitations that nobody has used</h2>
    ${
      invites.length === 0
        ? html`<p class="muted">There are none. <a href="/">Your account</a> makes them.</p>`
        : removableTable(invites, formToken(context, config, key))
    }`;
  return page(context, { title: "People", wide: true, body });
}

function peopleTable(people: readonly ListedPerson[]): Markup {
  return html`<div class="scroll" tabindex="0" role="region" aria-label="People">
    <table>
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">Address</th>
          <th scope="col">Teams</th>
        </tr>
      </thead>
      <tbody>
        ${people.map(
          ({ id, name, email, admin, teams }) =>
            html`<tr>
              <td><a href="/people/${id}">${name}</a>${admin ? html` <small>administrator</small>` : ""}</td>
              <td>${email ?? ""}</td>
              <td>${teams.join(", ")}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

async function personPage(context: RequestContext, parts: Parts): Promise<Response> {
  const { config, database, key } = parts;
  const person = await findManaged(database, context.req.param("id") ?? "");
  const csrf = formToken(context, config, key);
  const at = `/people/${person.id}`;
  const isSelf = person.id === callerOf(context).id;
  const body = html`<p>
      ${person.email ?? ""} ${person.subject === undefined ? "" : html`Logs in as <strong>${person.subject}</strong>.`}
      ${person.admin ? "An administrator." : ""}
    </p>
    <h2>Teams</h2>
    ${await teamsPart(parts, person, csrf)}
    <h2>Laptops and keys</h2>
    ${await loginsPart(parts, person, csrf)}
    <h2>Rights and account</h2>
    <div class="row">
      ${
        isSelf || rightsAreElsewhere(parts, person)
          ? ""
          : button(`${at}/admin`, csrf, person.admin ? "No administrator any more" : "Make an administrator", {
              admin: person.admin ? "no" : "yes",
            })
      }
      ${person.subject === undefined ? "" : button(`${at}/password`, csrf, "Make a link for a new password")}
      ${button(`${at}/log-out`, csrf, "End all logins")}
    </div>
    ${
      isSelf
        ? ""
        : html`<details>
            <summary>Remove ${person.name}</summary>
            <p>All logins and keys end, and what this person shared goes. This cannot be undone.</p>
            ${button(`${at}/remove`, csrf, `Remove ${person.name} for good`)}
          </details>`
    }
    <p><a href="/people">All people</a></p>`;
  return page(context, { title: person.name, wide: true, body });
}

async function teamsPart({ database }: Parts, person: ManagedPerson, csrf: string): Promise<Markup> {
  const names = person.teams.map((team) => team.name).join(", ");
  if (person.subject === undefined) return html`<p>${names} <small>as the identity provider says</small></p>`;
  const rows = person.teams.map(({ id, name }) => {
    return { name, when: "", path: `/people/${person.id}/teams/${id}/remove` };
  });
  const all = await visibleTeams(database, { ...person, admin: true });
  return html`${rows.length === 0 ? html`<p class="muted">In none.</p>` : removableTable(rows, csrf)}
    <form method="post" action="/people/${person.id}/teams">
      ${hidden("csrf", csrf)} <label for="team">Add to a team</label
      ><input id="team" name="team" list="teams" maxlength="100" required />
      <datalist id="teams">${all.slice(0, 500).map((team) => html`<option value="${team.name}"></option>`)}</datalist>
      <div class="row"><button class="quiet">Add</button></div>
    </form>`;
}

async function loginsPart({ database }: Parts, { id: personId }: ManagedPerson, csrf: string): Promise<Markup> {
  const logins = (await loginsOf(database, personId)).map(({ id, device, seenMs }) => {
    return { name: device, when: `seen ${formatDay(seenMs)}`, path: `/people/${personId}/logins/${id}/remove` };
  });
  const keys = (await apiKeysOf(database, personId)).map(({ id, name, usedMs }) => {
    const when = usedMs === null ? "never used" : `used ${formatDay(usedMs)}`;
    return { name: `key: ${name}`, when, path: `/people/${personId}/keys/${id}/remove` };
  });
  const rows = [...logins, ...keys];
  return rows.length === 0 ? html`<p class="muted">There are none.</p>` : removableTable(rows, csrf);
}

function button(path: string, csrf: string, text: string, fields: Readonly<Record<string, string>> = {}): Markup {
  return html`<form method="post" action="${path}">
    ${hidden("csrf", csrf)}${Object.entries(fields).map(([name, value]) => hidden(name, value))}
    <button class="quiet">${text}</button>
  </form>`;
}
