// The dashboard's page and its data. The page asks and is answered when something is different (a long poll, which every
// proxy lets through); rights are looked up again while it waits, and it waits less long than a request may take.
import { AppError } from "#base/error.ts";
import { findPerson } from "#cloud/identity/people.ts";
import type { Person } from "#cloud/identity/people.ts";
import { formToken } from "#cloud/web/browser.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf } from "#cloud/web/route.ts";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";
import type { PageFiles } from "./page-files.ts";
import type { DashboardSources } from "./snapshot.ts";
import { takeSnapshot } from "./snapshot.ts";

/** chosen: below what app.ts gives a request; how often it is looked; pages that wait, in all and of one person. */
const [waitMs, stepMs, maxWaiting, maxOfOne] = [25_000, 1500, 500, 8];

export interface DashboardOptions {
  readonly sources: DashboardSources;
  readonly files: PageFiles;
  readonly isServing: () => boolean;
}

export function dashboardRoutes(parts: Parts, { sources, files, isServing }: DashboardOptions): readonly Route[] {
  const waiting = new Map<string, number>();
  let all = 0;
  const mayWait = (person: Person): boolean => all < maxWaiting && (waiting.get(person.id) ?? 0) < maxOfOne;

  /** The first that differs from `known`, or the one there is when it has taken too long. */
  const next = async (context: RequestContext, person: Person, known: string | undefined) => {
    const until = parts.clock.now() + waitMs;
    for (;;) {
      const now = await findPerson(parts.database, person.id);
      if (now === undefined) throw new AppError("unauthorized", "your account was removed");
      const found = await takeSnapshot(parts, sources, now);
      if (found.revision !== known || !isServing() || parts.clock.now() > until) return found;
      await parts.clock.sleep(stepMs, context.req.raw.signal);
    }
  };

  const answer = async (context: RequestContext): Promise<Response> => {
    const person = callerOf(context);
    const known = context.req.query("after");
    const csrf = formToken(context, parts.config, parts.key);
    const waits = known !== undefined && mayWait(person);
    if (waits) count(1);
    try {
      const found = await next(context, person, waits ? known : undefined);
      return context.json({ ...found, csrf } satisfies DashboardSnapshot);
    } finally {
      if (waits) count(-1);
    }

    function count(by: 1 | -1): void {
      all += by;
      const left = (waiting.get(person.id) ?? 0) + by;
      if (left === 0) waiting.delete(person.id);
      else waiting.set(person.id, left);
    }
  };

  return [
    {
      method: "GET",
      path: "/dashboard",
      access: "person",
      handle: (context) => context.html(files.read("dashboard.html").toString()),
    },
    asset("/assets/dashboard.js", "text/javascript"),
    asset("/assets/dashboard.css", "text/css"),
    { method: "GET", path: "/api/dashboard", access: "person", handle: answer },
  ];

  function asset(path: string, type: string): Route {
    const file = path.slice("/assets/".length);
    const handle: Route["handle"] = (context) =>
      context.body(new Uint8Array(files.read(file)), 200, {
        "content-type": `${type}; charset=utf-8`,
        // asked for again each time, because its name stays when the server is a newer one
        "cache-control": "no-cache",
      });
    return { method: "GET", path, access: "public", handle };
  }
}
