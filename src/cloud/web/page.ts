// The frame of a server-rendered page: one style sheet, no script. `html` escapes whatever is put into it.
import { html } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { RequestContext } from "./route.ts";

export interface Page {
  readonly title: string;
  readonly status?: ContentfulStatusCode;
  /** Text, or markup made by `html`. */
  readonly body: string | HtmlEscapedString | Promise<HtmlEscapedString>;
}

export function page(context: RequestContext, { title, body, status = 200 }: Page): Response | Promise<Response> {
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
          <main>
            <h1>${title}</h1>
            ${typeof body === "string" && !isMarkup(body) ? html`<p>${body}</p>` : body}
          </main>
        </body>
      </html>`,
    status,
  );
}

const isMarkup = (body: string): boolean => (body as Partial<HtmlEscapedString>).isEscaped === true;
