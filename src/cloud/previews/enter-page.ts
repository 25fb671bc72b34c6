// The stop at the main host between a preview and its visitor: whoever is logged in here and may see the preview goes
// back with a code that is good once, for a minute, for that preview and for that browser.
import { html } from "hono/html";
import { AppError } from "#base/error.ts";
import { hashToken } from "#cloud/identity/tokens.ts";
import { localPath, readCookie } from "#cloud/web/browser.ts";
import { page } from "#cloud/web/page.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf, requireBrowser } from "#cloud/web/route.ts";
import { findPreviewByHost } from "./previews.ts";
import { returnPath } from "./proxy.ts";
import { mayVisit, newVisitCode } from "./visitors.ts";

export function enterRoute(parts: Parts): Route {
  return { method: "GET", path: "/previews/enter", access: "person", handle: (context) => enter(context, parts) };
}

async function enter(context: RequestContext, parts: Parts): Promise<Response> {
  const { database, clock, config, previews } = parts;
  const person = callerOf(context);
  requireBrowser(context, "open a preview");
  const preview = await findPreviewByHost(database, context.req.query("preview") ?? "");
  const browser = context.req.query("browser") ?? "";
  if (preview === undefined || preview.removedWhy !== undefined || !/^[0-9a-f]{64}$/.test(browser)) {
    throw new AppError("not_found", "there is no such preview");
  }
  if (!mayVisit(person, preview)) {
    throw new AppError("denied", `you are logged in as ${person.name}, and this preview is another team's`);
  }
  const sessionHash = hashToken(readCookie(context, "session", config) ?? "");
  const code = await newVisitCode(database, { previewId: preview.id, sessionHash, browser }, clock.wallMs());
  const back = new URL(returnPath, previews.originOf(preview.host));
  back.search = new URLSearchParams({ code, to: localPath(context.req.query("to")) }).toString();
  // A page and no redirect: a login's form may lead here, and its policy names no other site to go to.
  context.header("refresh", `0;url=${back.href}`);
  return page(context, {
    title: "To the preview",
    body: html`<p><a href="${back.href}">Open ${back.host}</a></p>`,
  });
}
