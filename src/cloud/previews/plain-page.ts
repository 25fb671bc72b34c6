// What a preview's host says itself: one sentence, as a page for people and as a line for programs.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { escapeHtml } from "./banner.ts";

export interface Refusal {
  readonly status: 400 | 401 | 403 | 404 | 429 | 502 | 503;
  readonly title: string;
  readonly sentence: string;
  /** Where a person goes from here. */
  readonly link?: { readonly href: string; readonly text: string };
}

const style =
  "body{font:16px/1.6 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color-scheme:light dark}" +
  "h1{font-size:1.4rem}";

const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
};

export function wantsPage({ headers: { accept } }: IncomingMessage): boolean {
  return accept?.includes("text/html") === true;
}

export function sayPlainly(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void {
  const forPeople = wantsPage(request);
  const body = Buffer.from(forPeople ? pageOf(refusal) : `${refusal.sentence}\n`);
  response.writeHead(refusal.status, {
    ...headers,
    "content-type": `text/${forPeople ? "html" : "plain"}; charset=utf-8`,
    "content-length": body.length,
    ...(refusal.status === 503 ? { "retry-after": "10" } : {}),
    ...(request.httpVersionMajor === 1 && request.headers["content-length"] !== undefined
      ? { connection: "close" }
      : {}),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** For upgrades, which have no response object. */
export function refuseUpgrade(socket: Duplex, { status, title, sentence }: Refusal): void {
  const body = Buffer.from(`${sentence}\n`);
  socket.end(
    `HTTP/1.1 ${status} ${title.replace(/[^\x20-\x7e]/g, "")}\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n` +
      `content-length: ${body.length}\r\n\r\n${body.toString()}`,
  );
}

function pageOf({ title, sentence, link }: Refusal): string {
  const next = link === undefined ? "" : `<p><a href="${escapeHtml(link.href)}">${escapeHtml(link.text)}</a></p>`;
  return (
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
    `<title>${escapeHtml(title)}</title><style>${style}</style></head><body><main><h1>${escapeHtml(title)}</h1>` +
    `<p>${escapeHtml(sentence)}</p>${next}</main></body></html>`
  );
}
