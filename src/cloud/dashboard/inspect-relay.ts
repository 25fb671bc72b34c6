// The inspector of somebody's intercept for the people of its cluster's team: their requests go, one for one, over a stream
// of the tunnel to the laptop whose it is, which decides whether it answers. This server says who asks (PROTOCOL §8.11):
// the owner may send requests again, others look. An administrator who is not of the team sees nothing of them.
import { request as sendRequest } from "node:http";
import type { IncomingMessage } from "node:http";
import { once } from "node:events";
import { PassThrough, Readable } from "node:stream";
import type { Duplex } from "node:stream";
import type { Timer } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { audit } from "#cloud/audit.ts";
import { clustersOf, joinedPeople } from "#cloud/clusters/clusters.ts";
import type { ClusterTunnel } from "#cloud/clusters/cluster-tunnel.ts";
import type { Cluster } from "#cloud/clusters/clusters.ts";
import { findPerson } from "#cloud/identity/people.ts";
import type { Person } from "#cloud/identity/people.ts";
import { RateLimit } from "#cloud/web/rate-limits.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { callerOf } from "#cloud/web/route.ts";
import { cloudPaths } from "#wire/cloud-api.ts";
import { viewerHeader } from "#wire/inspector-api.ts";

/** chosen: answers of one person that are being read, and of all. */
const [maxOfOne, maxInAll] = [24, 400];
/** chosen: how often it is looked whether who reads still may. */
const checkMs = 10_000;
/** chosen: one entry of the audit log for a look, however often a page comes back. */
const auditRate = { burst: 1, perSecond: 1 / 3600 };

/** What the inspector's page asks for, and nothing else. */
const calls = [
  ["GET", "events"],
  ["GET", "har"],
  ["GET", "exchanges/:exchange"],
  ["POST", "exchanges/:exchange/replay"],
  ["POST", "clear"],
] as const;

/** Looks, which have no end of their own, end with `ending`. */
export function inspectRoutes(parts: Parts, ending: AbortSignal): readonly Route[] {
  const relay = new InspectRelay(parts);
  ending.addEventListener("abort", () => relay.endLooks(), { once: true });
  return calls.map(([method, path]): Route => {
    return {
      method,
      path: `${cloudPaths.clusters}/:id/intercepts/:intercept/inspect/api/${path}`,
      access: "person",
      handle: (context) => relay.answer(context, path === "events"),
    };
  });
}

interface Looked {
  readonly cluster: Cluster;
  readonly tunnel: ClusterTunnel;
  readonly interceptId: string;
  readonly name: string;
  readonly isOwner: boolean;
}

class InspectRelay {
  readonly #parts: Parts;
  readonly #audited: RateLimit;
  /** Answers that are being read, by person. */
  readonly #open = new Map<string, number>();
  #all = 0;
  readonly #looks = new Set<IncomingMessage>();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#audited = new RateLimit(auditRate, parts.clock);
  }

  async answer(context: RequestContext, isLook: boolean): Promise<Response> {
    const person = callerOf(context);
    const [uid, interceptId] = [context.req.param("id") ?? "", context.req.param("intercept") ?? ""];
    const looked = await this.#find(person, uid, interceptId);
    using reading = this.#count(person);
    const { signal } = context.req.raw;
    const { pathname, search } = new URL(context.req.url);
    const path = pathname.slice(pathname.indexOf("/inspect/") + "/inspect".length) + search;
    const stream = await looked.tunnel.open({ kind: "inspect", interceptId }, signal);
    const viewer = looked.isOwner ? "owner" : "team";
    const response = await exchange(stream, { method: context.req.method, path, viewer, signal });
    if (isLook && response.statusCode === 200) await this.#note(person, looked);
    reading.until(response);
    this.#watch(response, person, looked);
    if (isLook) {
      this.#looks.add(response);
      response.once("close", () => this.#looks.delete(response));
    }
    const headers = new Headers();
    for (const name of ["content-type", "content-disposition"]) {
      const value = response.headers[name];
      if (typeof value === "string") headers.set(name, value);
    }
    const body = Readable.toWeb(isLook ? endedByCut(response) : response) as ReadableStream<Uint8Array>;
    return new Response(body, { status: response.statusCode ?? 502, headers });
  }

  endLooks(): void {
    for (const response of this.#looks) response.destroy();
  }

  /** Of the caller's own teams. */
  async #find(person: Person, uid: string, interceptId: string): Promise<Looked> {
    const { database, live } = this.#parts;
    const teams = person.teams.map(({ id }) => id);
    for (const cluster of await clustersOf(database, teams)) {
      if (cluster.uid !== uid) continue;
      const people = await joinedPeople(database, cluster.id);
      const isOwn = (joinedBy: string): boolean => people.get(joinedBy)?.id === person.id;
      const found = live.find(cluster.id, interceptId, isOwn);
      if (found === undefined) continue;
      const { intercept, tunnel } = found;
      return { cluster, tunnel, interceptId, name: intercept.name, isOwner: isOwn(intercept.joinedBy) };
    }
    throw new AppError("not_found", "there is no such intercept in a team of yours");
  }

  async #note(person: Person, { cluster, interceptId, name, isOwner }: Looked): Promise<void> {
    if (isOwner || !this.#audited.tryTake(`${person.id} ${cluster.id} ${interceptId}`)) return;
    const { database, clock } = this.#parts;
    const entry = { action: "intercept.watched", teamId: cluster.teamId, person, subject: name } as const;
    await audit(database, entry, clock.wallMs());
  }

  /** Of what is read for long: a team is left, a person removed. */
  #watch(response: IncomingMessage, person: Person, { cluster, interceptId }: Looked): void {
    const { database, clock } = this.#parts;
    const end = (): void => void response.destroy();
    const look = async (): Promise<void> => {
      const now = await findPerson(database, person.id);
      if (now === undefined) return end();
      await this.#find(now, cluster.uid, interceptId);
    };
    const checking: Timer = clock.every(checkMs, () => void look().catch(end));
    response.once("close", () => checking[Symbol.dispose]());
  }

  #count({ id }: Person): Disposable & { until(response: IncomingMessage): void } {
    const mine = this.#open.get(id) ?? 0;
    if (mine >= maxOfOne || this.#all >= maxInAll) {
      throw new AppError("busy", "too many pages look at requests already; close one");
    }
    this.#open.set(id, mine + 1);
    this.#all++;
    let isKept = false;
    const end = (): void => {
      this.#all--;
      const left = (this.#open.get(id) ?? 1) - 1;
      if (left === 0) this.#open.delete(id);
      else this.#open.set(id, left);
    };
    return {
      until: (response) => {
        isKept = true;
        response.once("close", end);
      },
      [Symbol.dispose]: () => {
        if (!isKept) end();
      },
    };
  }
}

/** Lines that come as something happens are whole without an end, ours too; a page that sees one asks again. */
export function endedByCut(response: Readable): Readable {
  const lines = new PassThrough();
  response.once("close", () => lines.end()); // after an error as well
  lines.once("close", () => response.destroy());
  return response.pipe(lines);
}

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly viewer: string;
  readonly signal: AbortSignal;
}

/** One request on this stream, which ends with its answer. Of what the visitor sent only method and path go on. */
async function exchange(stream: Duplex, { method, path, viewer, signal }: Asked): Promise<IncomingMessage> {
  try {
    const sending = sendRequest({
      createConnection: () => stream,
      method,
      path,
      headers: { host: "inspector", connection: "close", [viewerHeader]: viewer, "content-length": "0" },
      signal,
    });
    sending.on("error", () => stream.destroy()); // also after the answer has begun, when nobody waits
    sending.end();
    const [response] = (await once(sending, "response", { signal })) as [IncomingMessage];
    response.on("error", () => undefined); // its reader sees the end
    response.once("close", () => stream.destroy());
    return response;
  } catch (cause) {
    stream.destroy();
    throw new AppError("unreachable", "the laptop whose intercept it is does not answer", { cause });
  }
}
