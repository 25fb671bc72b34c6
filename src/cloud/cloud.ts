// Builds the parts of a cloud server and holds them; ends them in reverse, requests before the database.
import type { IncomingMessage } from "node:http";
import { getConnInfo } from "@hono/node-server/conninfo";
import type { Clock, Timer } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { cloudPaths } from "#wire/cloud-api.ts";
import { forgetOldAudit } from "./audit.ts";
import { LiveClusters } from "./clusters/live-clusters.ts";
import { TunnelDoor } from "./clusters/tunnel-door.ts";
import type { CloudConfig } from "./config.ts";
import { BuiltPage } from "./dashboard/page-files.ts";
import { dashboardSources } from "./dashboard/snapshot.ts";
import { Traffic } from "./dashboard/traffic.ts";
import { inviteFirstAdmin } from "./identity/invites.ts";
import { LivePreviews } from "./previews/live-previews.ts";
import { PreviewProxy } from "./previews/proxy.ts";
import { Visits } from "./previews/visits.ts";
import { openDatabase } from "./storage/open.ts";
import { claimSqlite } from "./storage/sole-sqlite.ts";
import { signingKey } from "./storage/settings.ts";
import { buildApp } from "./web/app.ts";
import { trustProxies } from "./web/caller-address.ts";
import { Metrics } from "./web/metrics.ts";
import type { Parts, RequestContext } from "./web/route.ts";
import { allRoutes } from "./web/routes.ts";
import { CloudServer } from "./web/server.ts";

export interface CloudOptions {
  readonly config: CloudConfig;
  readonly clock: Clock;
  readonly log: Logger;
  /** Where the dashboard's page lies; beside the program when left out. */
  readonly pageFolder?: string;
  /** It can work no more and is to be ended, say because another server has its database. */
  readonly onFailed?: (error: AppError) => void;
}

export interface Cloud extends AsyncDisposable {
  readonly port: number;
  /** What whoever started it should read. */
  readonly greeting: readonly string[];
}

/** chosen: how long requests in flight have at the end; a kubelet waits 30 s. */
const drainMs = 10_000;

/** chosen: how often visitors' counts are written; what a server loses that is killed. */
const visitsMs = 30_000;

const dayMs = 24 * 3600 * 1000;

export async function startCloud(options: CloudOptions): Promise<Cloud> {
  const { config: given, clock, log, pageFolder } = options;
  await using stack = new AsyncDisposableStack();
  const holdsDatabase = await claimDatabase(stack, options);
  const database = stack.use(await openDatabase(given.database, { clock, log }));
  const key = await signingKey(database);
  const live = stack.use(new LiveClusters({ database, clock, log }));
  const visits = await keepVisits(stack, { database, clock, log, holdsDatabase });
  const heldWhileServing = stack.use(new DisposableStack());
  const ending = new AbortController();
  const server = await CloudServer.listen(given);
  stack.defer(async () => {
    ending.abort();
    const { promise, resolve } = Promise.withResolvers<void>();
    using _limit = clock.after(drainMs, resolve);
    await server.close(promise);
  });
  const config = withPort(given, server.port);
  const metrics = new Metrics();
  const traffic = new Traffic(clock);
  const previews = heldWhileServing.use(new LivePreviews({ config, database, live, visits, clock, log }));
  const parts: Parts = { config, clock, log, database, metrics, traffic, live, previews, key };
  const forwarded = trustProxies(config.trustedProxies);
  const addressOf = (context: RequestContext): string =>
    forwarded(getConnInfo(context).remote.address ?? "", context.req.header("x-forwarded-for"));
  const addressOfRequest = ({ socket, headers }: IncomingMessage): string =>
    forwarded(socket.remoteAddress ?? "", headers["x-forwarded-for"]?.toString());
  const wholeAddress = trustProxies(config.trustedProxies, true);
  const proxy = new PreviewProxy(parts, previews, {
    counted: addressOfRequest,
    whole: ({ socket, headers }) => wholeAddress(socket.remoteAddress ?? "", headers["x-forwarded-for"]?.toString()),
  });
  const tunnels = new TunnelDoor(parts, live, addressOfRequest);
  metrics.gauge("telepresence_cloud_managers", "Managers with a tunnel", () => live.count);
  const sources = dashboardSources(parts);
  const routes = allRoutes(parts, {
    isServing: () => !ending.signal.aborted,
    ending: ending.signal,
    sources,
    files: new BuiltPage(pageFolder),
  });
  const app = buildApp(parts, routes, addressOf);
  server.serve(config, {
    app,
    previews: config.previewDomain === undefined ? undefined : proxy,
    upgrades: new Map([[cloudPaths.tunnel, tunnels]]),
  });
  stack.use(tidyDaily(parts));
  log.info("cloud server started", { port: server.port, database: database.kind });
  const providerDecides = config.oidc?.adminGroup !== undefined;
  const greeting = greet(config, providerDecides ? undefined : await inviteFirstAdmin(database, clock.wallMs()));
  const owned = stack.move();
  return {
    port: server.port,
    greeting,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Given back after the database is closed. Says from then on whether the database is still this server's. */
async function claimDatabase(
  stack: AsyncDisposableStack,
  { config: { database }, clock, log, onFailed }: CloudOptions,
): Promise<() => boolean> {
  if (database.kind === "sqlite") {
    if (database.path !== ":memory:") stack.use(await claimSqlite(database.path, { clock, log }));
    return () => true;
  }
  const { claimPostgres } = await import("./storage/sole-server.ts");
  const onLost = onFailed ?? ((error: AppError) => log.error("the server has to end", { error: error.message }));
  const claim = stack.use(await claimPostgres(database.url, { clock, log, onLost }));
  return () => claim.holds;
}

/**
 * Counts go on where an earlier server left them; the last are written after the last request. They are sums, so a server that
 * has lost its database writes none over those of the next one.
 */
async function keepVisits(
  stack: AsyncDisposableStack,
  {
    database,
    clock,
    log,
    holdsDatabase,
  }: Pick<Parts, "database" | "clock" | "log"> & { readonly holdsDatabase: () => boolean },
): Promise<Visits> {
  const visits = new Visits();
  await visits.load(database);
  const save = async (all: boolean): Promise<void> => {
    if (!holdsDatabase()) return;
    await visits.save(database, all).catch((error: unknown) => {
      log.warn("counts of previews' visitors could not be written", { error: String(error) });
    });
  };
  stack.defer(() => save(true));
  stack.use(clock.every(visitsMs, () => void save(false)).unref());
  return visits;
}

function tidyDaily({ previews, database, clock, log }: Parts): Timer {
  const tidy = (): void => {
    previews.tidy().catch((error: unknown) => {
      log.warn("old previews could not be removed", { error: String(error) });
    });
    forgetOldAudit(database, clock.wallMs()).catch((error: unknown) => {
      log.warn("old entries of the audit log could not be removed", { error: String(error) });
    });
  };
  tidy();
  return clock.every(dayMs, tidy).unref();
}

/** Port 0 is any free one, and the server's own address has it too. */
function withPort(config: CloudConfig, port: number): CloudConfig {
  if (config.url.port !== "0") return config;
  const url = new URL(config.url);
  url.port = String(port);
  return { ...config, url };
}

function greet({ url, previewDomain }: CloudConfig, invite: string | undefined): readonly string[] {
  const toTryOut = previewDomain?.endsWith(".localhost") === true ? " (to try out, on this machine only)" : "";
  const port = url.port === "" ? "" : `:${url.port}`;
  return [
    `Telepresence's cloud server is at ${url.origin}`,
    previewDomain === undefined
      ? "Without --preview-domain there are no previews"
      : `Previews are at ${url.protocol}//NAME.${previewDomain}${port}${toTryOut}`,
    ...(invite === undefined
      ? []
      : [`The first administrator comes in here, once, within a day: ${url.origin}/invite/${invite}`]),
  ];
}
