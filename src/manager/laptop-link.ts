// One laptop's link: the session over its port-forward, the API on its first stream, and its streams into the cluster.
// Invariants: nothing but `arrive` is done for a link that has not arrived; while it has no transport its session counts
// as lost, new callers get the application, and what is open stands still: callers' connections for two minutes.
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Handlers, Rpc } from "#tunnel/rpc.ts";
import type { ReceivePool } from "#tunnel/receive-window.ts";
import type { ResumableSessions } from "#tunnel/resumable-sessions.ts";
import type { IncomingStream, TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import type { Feature, Hello } from "#wire/hello.ts";
import { inboundHoldMs, managerBudgetBytes, maxStreams, openTimeoutMs } from "#wire/limits.ts";
import { managerApi, managerNotifications } from "#wire/manager-api.ts";
import type { ResultOf } from "#wire/rpc.ts";
import { deadline, linkSignals } from "#base/abort.ts";
import type { OpenRequest } from "#wire/open.ts";
import type { Clouds } from "./cloud/clouds.ts";
import type { DirectAdmissions } from "./direct-door.ts";
import type { Dialer } from "#egress/dial.ts";
import { acceptOutbound } from "#egress/accept.ts";
import type { Resolver } from "#egress/resolve.ts";
import { printable } from "./printable.ts";
import type { RefusalLog } from "./refusal-log.ts";
import type { Registry } from "./registry/registry.ts";
import type { LaptopLink, SessionRecord } from "./registry/sessions.ts";

/** chosen: a link that has not arrived by then is closed. */
const arriveMs = 10_000;
/** chosen: how long streams may go on when the laptop has ended its API in order. */
const closeMs = 2000;

export type ManagerFacts = Omit<ResultOf<typeof managerApi, "arrive">, "sessionId" | "ended">;

export interface LaptopDoor {
  readonly registry: Registry;
  readonly dialer: Dialer;
  readonly resolver: Resolver;
  readonly facts: ManagerFacts;
  readonly hello: Hello;
  readonly sessions: ResumableSessions;
  /** What waits for readers, over all laptops. */
  readonly receivePool: ReceivePool;
  readonly direct: DirectAdmissions;
  readonly clouds: Clouds;
  /** Where a NodePort is open. */
  readonly nodeAddresses: readonly string[];
  readonly refusals: RefusalLog;
  readonly clock: Clock;
  readonly log: Logger;
}

type LaptopRpc = Rpc<Record<never, never>, Record<never, never>, typeof managerNotifications>;

/** Says HELLO and serves the laptop; resolves once the session stands, with nothing when one that stood goes on here. */
export async function acceptLaptop(
  transport: Duplex,
  door: LaptopDoor,
  signal: AbortSignal,
  onlySessionId?: string,
): Promise<Laptop | undefined> {
  const { clock, log, hello } = door;
  const limits = { maxStreams, budgetBytes: managerBudgetBytes, pool: door.receivePool };
  const options = { transport, hello, expectRole: "laptop", limits, clock, log, signal } as const;
  const session = await door.sessions.accept(options, onlySessionId);
  if (session === undefined) return undefined;
  const laptop = new Laptop(session, door);
  laptop.serve();
  return laptop;
}

export class Laptop {
  readonly closed: Promise<unknown>;
  readonly #session: TunnelSession;
  readonly #door: LaptopDoor;
  #rpc: LaptopRpc | undefined;
  #record: SessionRecord | undefined;
  /** Aborts when the present transport is lost: streams of callers do not wait for the next. */
  #transport = new AbortController();
  /** Callers' streams, and whether each may wait for the next. */
  readonly #inbound = new Map<TunnelStream, boolean>();
  #patience: Timer | undefined;

  constructor(session: TunnelSession, door: LaptopDoor) {
    this.#session = session;
    this.#door = door;
    this.closed = session.closed;
  }

  /** Ends in order; what is still open when the signal aborts is cut. */
  close(signal: AbortSignal): Promise<void> {
    this.#rpc?.dispose();
    return this.#session.close(signal);
  }

  serve(): void {
    const { clock, log, registry } = this.#door;
    const patience = clock.after(arriveMs, () => {
      if (this.#record === undefined)
        this.#session.destroy(new AppError("timeout", "the laptop did not arrive in time"));
    });
    this.#session.onIncoming((incoming) => this.#accept(incoming));
    this.#session.onTransport({ lost: (reason) => this.#suspend(reason), resumed: () => this.#resume() });
    void this.#session.closed.then((reason) => {
      patience[Symbol.dispose]();
      this.#patience?.[Symbol.dispose]();
      if (this.#record === undefined) return;
      log.info("laptop link ended", { sessionId: this.#record.id, reason: reason?.message ?? "closed in order" });
      registry.lose(this.#record);
    });
  }

  /** Callers' streams wait for a while, or end now where their agent would not end what can be given to the application. */
  #suspend(reason: AppError): void {
    this.#transport.abort(reason);
    this.#transport = new AbortController();
    for (const [stream, mayWait] of this.#inbound) if (!mayWait) stream.destroy(reason);
    this.#patience = this.#door.clock.after(inboundHoldMs, () => {
      for (const stream of this.#inbound.keys()) stream.destroy(reason);
    });
    // The registry ends what waits for too long, but only of laptops that have arrived and not departed.
    if (this.#record?.link === undefined) this.#session.destroy(reason);
    else this.#door.registry.suspend(this.#record);
  }

  #resume(): void {
    this.#patience?.[Symbol.dispose]();
    if (this.#record !== undefined) this.#door.registry.resume(this.#record);
  }

  #accept(incoming: IncomingStream): void {
    const { kind } = incoming.request;
    if (kind === "rpc") this.#acceptRpc(incoming);
    else if (this.#record?.link === undefined) incoming.reject("denied", "this link has not arrived");
    else void acceptOutbound(incoming, this.#door);
  }

  #acceptRpc(incoming: IncomingStream): void {
    if (this.#rpc !== undefined || incoming.request.kind !== "rpc" || incoming.request.api !== "manager") {
      incoming.reject("denied", 'expected one rpc stream of the api "manager"');
      return;
    }
    this.#rpc = openRpc({
      stream: incoming.accept(),
      serves: { api: managerApi, handlers: this.#handlers() },
      sends: managerNotifications,
      log: this.#door.log,
    });
    // Without its API the link is of no use to anybody.
    void this.#rpc.closed.then((reason) => this.#endWithApi(reason));
  }

  async #endWithApi(reason: AppError | undefined): Promise<void> {
    if (reason !== undefined) this.#session.destroy(reason);
    using limit = deadline(this.#door.clock, closeMs, "the end of the laptop's link");
    await this.#session.close(limit.signal);
  }

  #handlers(): Handlers<typeof managerApi> {
    const { registry, resolver, facts } = this.#door;
    return {
      arrive: (params) => {
        if (this.#record !== undefined) throw new AppError("protocol", "this link has arrived already");
        this.#record = registry.arrive({ ...params, client: printable(params.client) }, this.#link());
        return { sessionId: this.#record.id, ...facts, ended: [...this.#record.ended.values()] };
      },
      "intercept.create": ({ spec, createdAtMs }, signal) =>
        registry.create(this.#arrived(), spec, signal, createdAtMs),
      "intercept.remove": async ({ id }, signal) => {
        await registry.remove(this.#arrived(), id, signal);
        return {};
      },
      "intercept.list": () => {
        this.#arrived();
        // One that does not know intercepts without ports would take the whole answer for wrong.
        const knowsAll = this.#session.peer.features.includes("replace" satisfies Feature);
        return { intercepts: registry.list().filter(({ spec }) => knowsAll || spec.ports.length > 0) };
      },
      "agents.trust": ({ agents }) => {
        registry.trust(this.#arrived(), agents);
        return {};
      },
      "dns.exchange": async ({ message }, signal) => {
        this.#arrived();
        const answer = await resolver.exchange(Buffer.from(message, "base64"), signal);
        return { message: Buffer.from(answer).toString("base64") };
      },
      "direct.admit": ({ fingerprint }) => this.#admitDirectly(fingerprint),
      ...this.#cloudHandlers(),
      depart: async (_params, signal) => {
        await registry.depart(this.#arrived(), signal);
        return {};
      },
    };
  }

  #cloudHandlers(): Pick<Handlers<typeof managerApi>, "cloud.join" | "cloud.leave" | "preview.put" | "preview.remove"> {
    const { clouds } = this.#door;
    return {
      "cloud.join": (params) =>
        clouds.join(this.#arrived(), params, (url, state, message) =>
          this.#rpc?.notify("cloud.changed", { url, state, message: message.slice(0, 500) }),
        ),
      "cloud.leave": ({ url }) => {
        clouds.leave(this.#arrived(), url);
        return {};
      },
      "preview.put": async (params) => {
        await clouds.put(this.#arrived(), params);
        return {};
      },
      "preview.remove": ({ previewId }) => {
        clouds.remove(this.#arrived(), previewId);
        return {};
      },
    };
  }

  #admitDirectly(fingerprint: string): { forMs: number; nodeAddresses: string[] } {
    this.#arrived();
    const { sessions, direct, nodeAddresses } = this.#door;
    const place = sessions.placeOf(this.#session);
    if (place === undefined) throw new AppError("unsupported", "this link cannot go on over another connection");
    if (place.isAdmitted) throw new AppError("denied", "a session is proved through a port-forward only");
    void this.#session.closed.then(() => direct.end(place.sessionId));
    return { forMs: direct.admit(place.sessionId, fingerprint), nodeAddresses: [...nodeAddresses] };
  }

  #arrived(): SessionRecord {
    if (this.#record === undefined) throw new AppError("denied", "this link has not arrived");
    if (this.#record.link === undefined) throw new AppError("link_lost", "this session has ended");
    return this.#record;
  }

  async #openInbound(request: OpenRequest, mayWait: boolean, signal: AbortSignal): Promise<TunnelStream> {
    using either = linkSignals(signal, this.#transport.signal);
    using limit = deadline(this.#door.clock, openTimeoutMs, "the laptop's answer", either.signal);
    const stream = await this.#session.open(request, limit.signal);
    this.#inbound.set(stream, mayWait);
    stream.once("close", () => this.#inbound.delete(stream));
    return stream;
  }

  #link(): LaptopLink {
    const session = this.#session;
    return {
      get keptBytes() {
        return session.keptBytes;
      },
      notifyIntercepts: (intercepts) => this.#rpc?.notify("intercepts.changed", { intercepts: [...intercepts] }),
      notifyAgentLost: (podUid) => this.#rpc?.notify("agent.lost", { podUid }),
      notifyEnded: (ended) => this.#rpc?.notify("intercept.ended", ended),
      openInbound: (...inbound) => this.#openInbound(...inbound),
      destroy: (error) => this.#session.destroy(error),
    };
  }
}
