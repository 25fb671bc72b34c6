// The cloud servers that laptops have this manager join, and the previews that they have registered (PROTOCOL §8.1,
// §8.11). All of it is memory: a laptop joins again after each arrival.
// Invariants: a preview belongs to an intercept of the session that put it, and dials nothing but its ingress; a server
// hears only of intercepts whose laptops have joined it.
// @to manager/cloud/dial-name.ts
import { randomUUID } from "node:crypto";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { printable } from "#manager/printable.ts";
import type { InterceptRecord } from "#manager/registry/intercepts.ts";
import type { Registry } from "#manager/registry/registry.ts";
import type { SessionRecord } from "#manager/registry/sessions.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import type { ReportedIntercept } from "#wire/cloud-api.ts";
import { maxReported } from "#wire/cloud-tunnel-api.ts";
import type { CloudLinkState, managerApi } from "#wire/manager-api.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import { CloudLink, hashOfToken } from "./cloud-link.ts";
import type { Member, Report } from "./cloud-link.ts";
import { dialName } from "./dial-name.ts";
import type { NameDialer } from "./dial-name.ts";

/** chosen: tunnels in all, those of one session (one for each team); previews of one session. */
const [maxLinks, maxOfSession, maxPreviews] = [16, 4, 100];
/** chosen: of a filter, which may have 4 KiB; and of all of a report. */
const [maxFilterLength, maxReportBytes] = [500, 512 * 1024];

interface Preview {
  readonly session: SessionRecord;
  readonly interceptId: string;
  readonly ingress: { readonly host: string; readonly port: number };
}

type Tell = (url: string, state: CloudLinkState, message: string) => void;

export interface CloudsOptions extends NameDialer {
  readonly registry: Registry;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Clouds implements AsyncDisposable {
  readonly #options: CloudsOptions;
  readonly #instance = randomUUID();
  readonly #links = new Map<string, CloudLink>();
  readonly #previews = new Map<string, Preview>();
  #isPruning = false;

  constructor(options: CloudsOptions) {
    this.#options = options;
    options.registry.watch({ changed: () => this.#changed(), ended: (id) => this.#ended(id) });
  }

  join(
    session: SessionRecord,
    wish: ParamsOf<typeof managerApi, "cloud.join">,
    tell: Tell,
  ): { state: CloudLinkState; message?: string } {
    const url = readUrl(wish.url);
    const key = JSON.stringify([url.origin, wish.clusterId, wish.team]);
    const member = {
      session,
      token: wish.token,
      caCertificates: wish.caCertificates ?? [],
      tell: (state: CloudLinkState, message: string) => tell(wish.url, state, message),
    };
    const known = this.#links.get(key);
    const joined = [...this.#links.values()].filter((link) => link !== known && link.has(session));
    if (joined.length >= maxOfSession) {
      throw new AppError("busy", `this laptop has ${maxOfSession} tunnels to cloud servers, expected fewer`);
    }
    if (known === undefined) {
      if (this.#links.size >= maxLinks) {
        throw new AppError("busy", `this traffic-manager has ${maxLinks} tunnels to cloud servers, expected fewer`);
      }
      const { clock, log } = this.#options;
      const link = new CloudLink(
        {
          url,
          instance: this.#instance,
          clock,
          log,
          dial: (by, signal) => this.#dialCloud(by, url, signal),
          report: (of) => this.#report(of),
          onIncoming: (incoming, of) => void this.#accept(incoming, of),
          endIntercept: (of, id, by, signal) => this.#endIntercept(of, id, by, signal),
        },
        member,
      );
      this.#links.set(key, link);
      return { state: link.state.state };
    }
    known.join(member);
    known.reportSoon();
    const { state, message } = known.state;
    return { state, ...(message === "" ? {} : { message }) };
  }

  leave(session: SessionRecord, url: string): void {
    for (const [key, link] of this.#links) if (isOf(key, readUrl(url))) this.#leave(link, session);
  }

  async put(
    session: SessionRecord,
    { previewId, interceptId, ingress }: ParamsOf<typeof managerApi, "preview.put">,
  ): Promise<void> {
    const { registry } = this.#options;
    if (registry.find(interceptId)?.session !== session) {
      throw new AppError("intercept_not_found", `intercept "${interceptId}" is not one of this session's`);
    }
    const known = this.#previews.get(previewId);
    if (known !== undefined && known.session !== session && registry.knows(known.session)) {
      throw new AppError("conflict", "the preview is another laptop's");
    }
    const own = [...this.#previews.values()].filter((preview) => preview.session === session);
    if (known === undefined && own.length >= maxPreviews) {
      throw new AppError("busy", `this session has ${maxPreviews} previews, expected fewer`);
    }
    this.#previews.set(previewId, { session, interceptId, ingress });
    await Promise.all([...this.#links.values()].filter((link) => link.has(session)).map((link) => link.reported()));
  }

  remove(session: SessionRecord, previewId: string): void {
    if (this.#previews.get(previewId)?.session !== session) {
      throw new AppError("not_found", "the preview is not one of this session's");
    }
    this.#previews.delete(previewId);
    this.#changed();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#links.values()].map((link) => link.close()));
  }

  /** Bytes of the cloud server's: to an ingress that was registered, or to the inspector of a laptop that has joined. */
  async #accept(incoming: IncomingStream, link: CloudLink): Promise<void> {
    try {
      const far = await this.#open(incoming, link);
      if (incoming.signal.aborted) far.destroy();
      else joinDuplex(incoming.accept(), far);
    } catch (error) {
      const refusal = toAppError(error);
      if (refusal.code === "denied")
        this.#options.log.warn("stream of a cloud server denied", { reason: refusal.message });
      if (!incoming.signal.aborted) incoming.reject(resetReasonOf(refusal), refusal.message);
    }
  }

  #open({ request, signal }: IncomingStream, link: CloudLink): Promise<Duplex> {
    if (request.kind === "preview") {
      const preview = this.#previews.get(request.previewId);
      if (preview === undefined || !link.has(preview.session)) {
        throw new AppError("not_found", "there is no such preview here");
      }
      return dialName(preview.ingress, this.#options, signal);
    }
    if (request.kind === "inspect") {
      const { session } = this.#interceptOf(link, request.interceptId);
      if (session.link === undefined) throw new AppError("link_lost", "the laptop's link is lost");
      return session.link.openInbound(request, false, signal);
    }
    throw new AppError("unsupported", `a cloud server may not open streams of kind "${request.kind}"`);
  }

  async #endIntercept(link: CloudLink, id: string, by: string, signal: AbortSignal): Promise<void> {
    await this.#options.registry.end(this.#interceptOf(link, id), printable(by), signal);
  }

  #interceptOf(link: CloudLink, id: string): InterceptRecord {
    const record = this.#options.registry.find(id);
    if (record !== undefined && link.has(record.session)) return record;
    throw new AppError("not_found", "there is no such intercept here");
  }

  /** A server on a laptop's loopback is reached through that laptop: another one would see its token. */
  async #dialCloud({ session }: Member, url: URL, signal: AbortSignal): Promise<Duplex> {
    if (!isLoopback(url)) {
      const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
      return dialName({ host: url.hostname.replace(/^\[|\]$/g, ""), port }, this.#options, signal);
    }
    if (session.link === undefined) throw new AppError("link_lost", "the laptop that has the server is not connected");
    return session.link.openInbound({ kind: "cloud", url: url.origin }, false, signal);
  }

  #report(link: CloudLink): Report {
    const hashes = new Map([...link.members].map(({ session, token }) => [session.id, hashOfToken(token)]));
    const byIntercept = Map.groupBy(this.#previews, ([, { interceptId }]) => interceptId);
    const all = this.#options.registry
      .list()
      .filter(({ sessionId }) => hashes.has(sessionId))
      .toSorted((a, b) => Number(byIntercept.has(b.id)) - Number(byIntercept.has(a.id))); // what is left out is not served
    const intercepts: ReportedIntercept[] = [];
    let bytes = 0;
    for (const { id, spec, client, state, message, createdAtMs, pods, sessionId } of all.slice(0, maxReported)) {
      const previewIds = (byIntercept.get(id) ?? []).map(([previewId]) => previewId);
      const { filter } = spec;
      const told = {
        id,
        name: spec.name,
        workload: spec.workload,
        client,
        state,
        message: message.slice(0, 500),
        ...(filter === undefined ? {} : { filter: filter.slice(0, maxFilterLength) }),
        createdAtMs,
        pods: pods.length,
        previewIds,
        joinedBy: hashes.get(sessionId) ?? "",
      };
      bytes += Buffer.byteLength(JSON.stringify(told));
      if (bytes > maxReportBytes) break;
      intercepts.push(told);
    }
    return { intercepts, more: all.length - intercepts.length };
  }

  #ended(interceptId: string): void {
    for (const [id, preview] of this.#previews) {
      if (preview.interceptId !== interceptId) continue;
      this.#previews.delete(id);
      for (const link of this.#links.values()) if (link.has(preview.session)) link.previewGone(id);
    }
  }

  /** Several changes of one turn are one. */
  #changed(): void {
    if (this.#isPruning) return;
    this.#isPruning = true;
    queueMicrotask(() => {
      this.#isPruning = false;
      this.#prune();
    });
  }

  #prune(): void {
    const { registry } = this.#options;
    for (const [id, { session }] of this.#previews) if (!registry.knows(session)) this.#previews.delete(id);
    for (const link of this.#links.values()) {
      link.reportSoon();
      for (const { session } of link.members) if (!registry.knows(session)) this.#leave(link, session);
    }
  }

  #leave(link: CloudLink, session: SessionRecord): void {
    link.leave(session);
    if (link.size > 0) {
      link.reportSoon();
      return;
    }
    for (const [key, known] of this.#links) if (known === link) this.#links.delete(key);
    void link.close();
  }
}

function readUrl(text: string): URL {
  const url = new URL(text);
  const safe = url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url));
  if (safe && url.username === "" && url.password === "") return url;
  throw new AppError("usage", `the cloud server is ${url.origin}, expected https://`);
}

const isOf = (key: string, url: URL): boolean => (JSON.parse(key) as string[])[0] === url.origin;
const isLoopback = ({ hostname }: URL): boolean =>
  hostname === "localhost" || hostname.endsWith(".localhost") || /^127(\.\d+){3}$|^\[::1\]$/.test(hostname);
