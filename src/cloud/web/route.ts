// What a route is: who may call it stands beside it, is held against each request by app.ts, and is what the table of
// all routes is tested by. A handler still asks for its objects by the caller's teams.
import type { Context } from "hono";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { LiveClusters } from "#cloud/clusters/live-clusters.ts";
import type { CloudConfig } from "#cloud/config.ts";
import type { Traffic } from "#cloud/dashboard/traffic.ts";
import type { Person } from "#cloud/identity/people.ts";
import type { LivePreviews } from "#cloud/previews/live-previews.ts";
import type { Database } from "#cloud/storage/database.ts";
import type { Metrics } from "./metrics.ts";

/**
 * `public`: anybody, and it changes nothing. `form`: anybody's browser, with a form of ours. `client`: a program without
 * a cookie (OAuth, health). `person`: who is logged in, by cookie or by token. `admin`: of them, administrators.
 */
export type Access = "public" | "form" | "client" | "person" | "admin";

export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** Hono's syntax: `/api/previews/:id`. */
  readonly path: string;
  readonly access: Access;
  readonly handle: (context: RequestContext) => Response | Promise<Response>;
}

/** What all handlers work with. */
export interface Parts {
  readonly config: CloudConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly database: Database;
  readonly metrics: Metrics;
  /** Managers that are connected. */
  readonly live: LiveClusters;
  readonly traffic: Traffic;
  readonly previews: LivePreviews;
  /** Signs what browsers carry for us; the same for all servers of one database. */
  readonly key: string;
}

export type RequestContext = Context<{ Variables: RequestVariables }>;

export interface RequestVariables {
  /** Where the request comes from, behind trusted proxies too. */
  address: string;
  /** Undefined for nobody. */
  caller: Caller | undefined;
  /** The browser's cookie, where this request has just made it. */
  browser: string | undefined;
}

/** Who calls, as the request proves it. */
export interface Caller {
  readonly person: Person;
  /** A cookie needs a form's token beside it, the others are sent on purpose. */
  readonly by: "cookie" | "access" | "key";
}

/** Of what outlives the way it was made by: what is revoked would live on in what a key or a token has made. */
export function requireBrowser(context: RequestContext, deed: string): void {
  if (context.get("caller")?.by !== "cookie") throw new AppError("denied", `only a person in a browser may ${deed}`);
}

/** For handlers whose access is `person` or `admin`. */
export function callerOf(context: RequestContext): Person {
  const caller = context.get("caller");
  if (caller === undefined) throw new AppError("unauthorized", "you are not logged in");
  return caller.person;
}
