// The frame of a server-rendered page: one style sheet, no script. `html` escapes whatever is put into it.
import { html } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { RequestContext } from "./route.ts";

export interface Page {
  readonly title: string;
  readonly status?: ContentfulStatusCode;
  /** For tables. */
  readonly wide?: boolean;
  /** Text, or markup made by `html`. */
  readonly body: string | HtmlEscapedString | Promise<HtmlEscapedString>;
}

export function page(
  context: RequestContext,
  { title, body, wide = false, status = 200 }: Page,
): Response | Promise<Response> {
  return context.html(
    html`<!doctype html>
      <html lang="en">
        <head>
          <meta charset="utf-8" />
          <meta name="viewport" content="width=device-width, initial-scale=1" />
          <meta name="color-scheme" content="light dark" />
          <title>${title}</title>
          <link rel="stylesheet" href="/assets/style.css" />
        </head>
        <body>
          <header><a class="brand" href="/">Telepresence</a></header>
          <main class="${wide ? "wide" : ""}">
            <h1>${title}</h1>
            ${typeof body === "string" && !isMarkup(body) ? html`<p>${body}</p>` : body}
          </main>
        </body>
      </html>`,
    status,
  );
}

const isMarkup = (body: string): boolean => (body as Partial<HtmlEscapedString>).isEscaped === true;

export type Markup = HtmlEscapedString | Promise<HtmlEscapedString>;

export interface Removable {
  readonly name: string;
  readonly when: string;
  /** Where the button posts to. */
  readonly path: string;
}

export function removableTable(rows: readonly Removable[], csrf: string): Markup {
  return html`<div class="scroll">
    <table>
      ${rows.map(
        ({ name, when, path }) =>
          html`<tr>
            <td>${name}</td>
            <td class="muted">${when}</td>
            <td>
              <form method="post" action="${path}">
                <input type="hidden" name="csrf" value="${csrf}" />
                <button class="quiet" aria-label="Remove ${name}">Remove</button>
              </form>
            </td>
          </tr>`,
      )}
    </table>
  </div>`;
}

export const formatDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);
