// The audit log, newest first: a person's teams' and what they did themselves, for an administrator everything.
import { html } from "hono/html";
import type { AuditRow } from "#cloud/audit.ts";
import { readAudit } from "#cloud/audit.ts";
import { page } from "./page.ts";
import type { Parts, RequestContext, Route } from "./route.ts";
import { callerOf } from "./route.ts";

export function auditRoutes(parts: Parts): readonly Route[] {
  return [
    { method: "GET", path: "/audit", access: "person", handle: (context) => auditPage(context, parts) },
    {
      method: "GET",
      path: "/api/audit",
      access: "person",
      handle: async (context) =>
        context.json(await readAudit(parts.database, callerOf(context), context.req.query("before"))),
    },
  ];
}

async function auditPage(context: RequestContext, { database }: Parts): Promise<Response> {
  const person = callerOf(context);
  const { entries, next } = await readAudit(database, person, context.req.query("before"));
  const whose = person.admin ? "Everybody's." : "Your teams', and what you did yourself.";
  const body = html`<p class="muted">${whose} Entries are kept for a year.</p>
    ${
      entries.length === 0
        ? html`<p>There is nothing more.</p>`
        : html`<div class="scroll" tabindex="0" role="region" aria-label="Entries">
            <table>
              <thead>
                <tr>
                  <th scope="col">When (UTC)</th>
                  <th scope="col">Who</th>
                  <th scope="col">What</th>
                  <th scope="col">To what</th>
                </tr>
              </thead>
              <tbody>
                ${entries.map(row)}
              </tbody>
            </table>
          </div>`
    }
    <nav class="row" aria-label="Pages">
      ${next === undefined ? "" : html`<a href="/audit?before=${next}">Older entries</a>`}
      <a href="/">Your account</a>
    </nav>`;
  return page(context, { title: "Audit log", wide: true, body });
}

function row({ atMs, who, action, subject }: AuditRow): ReturnType<typeof html> {
  return html`<tr>
    <td>${new Date(atMs).toISOString().slice(0, 19).replace("T", " ")}</td>
    <td>${who}</td>
    <td>${action}</td>
    <td>${subject}</td>
  </tr>`;
}
