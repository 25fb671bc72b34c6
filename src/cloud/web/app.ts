// What holds for every route of our own host: its size, its headers, who may call it, what an error looks like.
import type { Http2Bindings, HttpBindings } from "@hono/node-server";
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { deadline, raceSignal } from "#base/abort.ts";
import { toAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { Admission } from "./admission.ts";
import { page } from "./page.ts";
import type { Parts, RequestContext, RequestVariables, Route } from "./route.ts";
import { secure } from "./security-headers.ts";

/** chosen: forms and small JSON; what is larger has a route of its own. */
const maxBodyBytes = 64 * 1024;
/** chosen: from a request's head to its answer's, so that a body that trickles holds nothing. */
const answerMs = 30_000;

/** Makes the address of a caller known. */
export type AddressOf = (context: RequestContext) => string;

export type App = Hono<{ Variables: RequestVariables }>;

export function buildApp(parts: Parts, routes: readonly Route[], addressOf: AddressOf): App {
  const app: App = new Hono();
  const seconds = parts.metrics.histogram("telepresence_cloud_request_seconds", "Time of requests to our own pages");
  const overHttps = parts.config.url.protocol === "https:";
  app.use(async (context, next) => {
    const from = parts.clock.now();
    context.set("address", addressOf(context));
    await next();
    secure(context.res.headers, overHttps);
    seconds((parts.clock.now() - from) / 1000, { status: `${Math.floor(context.res.status / 100)}xx` });
  });
  app.use(async (_context, next) => {
    using limit = deadline(parts.clock, answerMs, "the request");
    await raceSignal(next(), limit.signal);
  });
  const limited = bodyLimit({
    maxSize: maxBodyBytes,
    onError: (context) => failure(context, 413, "the request is too large"),
  });
  app.use((context, next) => {
    // Hono would make a request of its own out of one without a length, which Node's adapter does not stand
    const length = lengthOf(context);
    if (length === "unknown") {
      return Promise.resolve(failure(context, 411, "the request does not say how long it is"));
    }
    if (length === "none") return next();
    return context.req.method === "POST" ? limited(context, next) : next(); // nobody reads a body of others
  });
  const admission = new Admission(parts);
  for (const route of routes) {
    app.on(route.method, route.path, async (context) => {
      return (await admission.admit(context, route)) ?? route.handle(context);
    });
  }
  app.notFound((context) => failure(context, 404, "there is nothing at this address"));
  app.onError((error, context) => {
    const { code, message, hint } = toAppError(error);
    if (code !== "internal") return failure(context, statuses[code] ?? 400, message, hint);
    parts.log.error("a request failed", { method: context.req.method, error: message });
    return failure(context, 500, "the server failed; its log says why");
  });
  return app;
}

/** By HTTP/1 a request that names neither length nor coding has no body, by HTTP/2 it may have one. */
function lengthOf(context: RequestContext): "none" | "unknown" | "said" {
  if (context.req.header("transfer-encoding") !== undefined) return "unknown";
  const { incoming } = (context.env ?? {}) as Partial<HttpBindings | Http2Bindings>; // a test may ask without a port
  if (incoming === undefined || context.req.header("content-length") !== undefined) return "said";
  return "stream" in incoming && !incoming.stream.endAfterHeaders ? "unknown" : "none";
}

type FailureStatus = 400 | 401 | 403 | 404 | 408 | 409 | 411 | 413 | 429 | 500 | 502 | 503;

const statuses: Readonly<Partial<Record<ErrorCode, FailureStatus>>> = {
  unauthorized: 401,
  denied: 403,
  not_found: 404,
  timeout: 408,
  conflict: 409,
  busy: 429,
  unreachable: 502,
  link_lost: 503,
};

/** A page for people, an object for programs. */
function failure(
  context: RequestContext,
  status: FailureStatus,
  message: string,
  hint?: string,
): Response | Promise<Response> {
  const forPeople = context.req.header("accept")?.includes("text/html") === true;
  if (!forPeople) return context.json({ error: message, ...(hint === undefined ? {} : { hint }) }, status);
  return page(context, { title: "Telepresence", status, body: message });
}
