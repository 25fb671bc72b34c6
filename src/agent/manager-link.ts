// The agent's links to managers: one for each key that a laptop introduced. A link that ends takes its intercepts with
// it in the same tick, so that the application answers; then it is tried again, for a while, with back-off.
// Invariant: intercepts are confirmed only once they are in force.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Pace } from "#base/pace.ts";
import { Scope } from "#base/scope.ts";
import { connectPinned } from "#tunnel/identity.ts";
import type { Identity } from "#tunnel/identity.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import { agentNotifications, agentToManagerApi, managerToAgentApi } from "#wire/agent-api.ts";
import type { CallersOfPort, ServedIntercept } from "#wire/agent-api.ts";
import type { Revocation } from "#wire/agent-door.ts";
import type { Hello } from "#wire/hello.ts";
import { agentBudgetBytes, maxAgentStreams } from "#wire/limits.ts";
import type { introductionApi } from "#wire/introduction-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import { InboundStreams } from "./inbound-streams.ts";
import type { OlderConnections } from "./older-connections.ts";
import type { InboundOpener, Refused, ServedIntercepts } from "./served.ts";
import type { UnreadConnections } from "./unread-connections.ts";

export type ManagerAddress = ParamsOf<typeof introductionApi, "introduce">["manager"];
type ManagerRpc = Rpc<typeof agentToManagerApi, Record<never, never>, typeof agentNotifications>;
export type AgentFacts = Omit<ParamsOf<typeof agentToManagerApi, "arrive">, "introducedBy">;

/** chosen: an introduction is answered by then, with the reason when there is no link. */
const introduceMs = 5000;
/** chosen: one address's turn; a dropped SYN shows as a time-out, which names a policy that cuts the way. */
const attemptMs = 4000;
const firstRetryMs = 100;
const lastRetryMs = 15_000;
/** chosen: a manager that was not reached for so long is forgotten; a laptop that wants it introduces it again. */
const forgetMs = 5 * 60_000;
/** chosen: how long streams may go on when the manager has ended the link in order. */
const closeMs = 2000;
/** chosen: counts of connections are told to the manager at once, and then at most this often. */
const countsIntervalMs = 500;
/** chosen: managers at once, so that introductions cannot pile up. */
const maxManagers = 16;
/** protocol: sessions named when a link comes back; who is not among them is told to introduce again. */
const maxIntroducers = 64;

export interface ManagerLinksOptions {
  readonly identity: Identity;
  readonly facts: AgentFacts;
  readonly hello: Hello;
  readonly served: ServedIntercepts;
  /** Brings redirects in line with what is served. */
  readonly applyRedirects: () => Promise<void>;
  /** What is known of the ports' callers now. */
  readonly callers: () => readonly CallersOfPort[];
  readonly older: OlderConnections;
  readonly unread: UnreadConnections;
  readonly clock: Clock;
  readonly log: Logger;
}

interface CopyCounts {
  readonly copied: number;
  readonly cut: number;
  readonly reason: string | undefined;
}

export class ManagerLinks implements AsyncDisposable {
  readonly #options: ManagerLinksOptions;
  readonly #scope: Scope;
  readonly #links = new Map<string, ManagerLink>();

  constructor(options: ManagerLinksOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
    options.older.onChange(() => {
      for (const link of this.#links.values()) link.tellOlder();
    });
    options.unread.onChange(() => {
      for (const link of this.#links.values()) link.tellUnread();
    });
  }

  get connectedCount(): number {
    return [...this.#links.values()].filter((link) => link.connected).length;
  }

  /**
   * Resolves when the link stands and the manager has taken the session for introduced; rejects with the reason. The link
   * is tried further in the background.
   */
  async introduce(manager: ManagerAddress, sessionId: string, signal: AbortSignal): Promise<void> {
    let link = this.#links.get(manager.fingerprint);
    if (link === undefined) {
      if (this.#links.size >= maxManagers) {
        throw new AppError("busy", `this agent serves ${maxManagers} traffic-managers already, expected fewer`);
      }
      link = new ManagerLink(manager, this.#options, this.#scope.signal);
      link.remember(sessionId);
      this.#links.set(manager.fingerprint, link);
      const started = link;
      this.#scope.background(
        "manager link",
        started.run().finally(() => {
          if (this.#links.get(manager.fingerprint) === started) this.#links.delete(manager.fingerprint);
        }),
      );
    } else {
      link.remember(sessionId);
      link.tryNow(manager);
    }
    using limit = deadline(this.#options.clock, introduceMs, "the link to the traffic-manager", signal);
    try {
      await raceSignal(link.whenConnected(), limit.signal);
    } catch (error) {
      throw link.failure ?? toAppError(error);
    }
    await link.name(sessionId, limit.signal);
  }

  /** Ends an intercept of this agent's workload at the manager that has it. */
  async revoke({ id, by }: Revocation, signal: AbortSignal): Promise<void> {
    let failure = new AppError("link_lost", "this agent is not connected to a traffic-manager");
    for (const link of this.#links.values()) {
      if (!link.connected) continue;
      try {
        await link.revoke({ id, by }, signal);
        return;
      } catch (error) {
        failure = toAppError(error);
        if (!isAppError(failure, "intercept_not_found")) throw failure;
      }
    }
    throw failure;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }
}

class ManagerLink implements InboundOpener {
  readonly #options: ManagerLinksOptions;
  readonly #ended: AbortSignal;
  readonly #refused = new Map<string, number>();
  readonly #copies = new Map<string, CopyCounts>();
  readonly #streams = new InboundStreams();
  #manager: ManagerAddress;
  readonly #refusedPace: Pace;
  readonly #copiesPace: Pace;
  readonly #unreadPace: Pace;
  #session: TunnelSession | undefined;
  #rpc: ManagerRpc | undefined;
  #failure: AppError | undefined;
  #connected = Promise.withResolvers<void>();
  #wake: (() => void) | undefined;
  /** Sessions that introduced this manager, the latest last. */
  readonly #introducers = new Set<string>();

  constructor(manager: ManagerAddress, options: ManagerLinksOptions, ended: AbortSignal) {
    this.#manager = manager;
    this.#options = options;
    this.#ended = ended;
    this.#refusedPace = new Pace(options.clock, countsIntervalMs, () => this.#tellRefused());
    this.#copiesPace = new Pace(options.clock, countsIntervalMs, () => this.#tellCopies());
    this.#unreadPace = new Pace(options.clock, countsIntervalMs, () => this.#tellUnread());
    this.#connected.promise.catch(() => undefined);
  }

  get connected(): boolean {
    return this.#rpc !== undefined;
  }
  /** Why the last attempt failed, undefined while it stands. */
  get failure(): AppError | undefined {
    return this.#failure;
  }
  whenConnected(): Promise<void> {
    return this.connected ? Promise.resolve() : this.#connected.promise;
  }
  tryNow(manager: ManagerAddress): void {
    this.#manager = manager;
    this.#wake?.();
  }

  /** Names the session when the link arrives, now and after each loss. */
  remember(sessionId: string): void {
    this.#introducers.delete(sessionId);
    this.#introducers.add(sessionId);
    const [oldest] = this.#introducers;
    if (this.#introducers.size > maxIntroducers && oldest !== undefined) this.#introducers.delete(oldest);
  }
  /** Names the session on the link that stands, also if it was when the link arrived: the answer is about this one. */
  async name(sessionId: string, signal: AbortSignal): Promise<void> {
    if (this.#rpc === undefined) throw new AppError("link_lost", "the traffic-manager's link ended");
    try {
      await this.#rpc.call("introduced", { sessionId }, signal);
    } catch (error) {
      if (isAppError(error, "denied")) this.#introducers.delete(sessionId);
      throw error;
    }
  }

  async revoke(revocation: Revocation, signal: AbortSignal): Promise<void> {
    if (this.#rpc === undefined) throw new AppError("link_lost", "the traffic-manager's link ended");
    await this.#rpc.call("intercept.revoke", revocation, signal);
  }

  // What a connection needs

  async open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream> {
    if (this.#session === undefined) throw new AppError("link_lost", "the traffic-manager is away");
    const stream = await this.#session.open(request, signal);
    if (request.kind === "inbound") this.#streams.add(request.interceptId, stream);
    return stream;
  }
  hold(stream: Duplex): void {
    this.#streams.hold(stream);
  }
  countRefused(interceptId: string): void {
    this.#refused.set(interceptId, (this.#refused.get(interceptId) ?? 0) + 1);
    this.#refusedPace.due();
  }
  countCopy(interceptId: string, cut?: string): void {
    const { copied = 0, cut: before = 0, reason } = this.#copies.get(interceptId) ?? {};
    this.#copies.set(
      interceptId,
      cut === undefined ? { copied: copied + 1, cut: before, reason } : { copied, cut: before + 1, reason: cut },
    );
    this.#copiesPace.due();
  }
  tellOlder(rpc = this.#rpc): void {
    rpc?.notify("connections.older", { ports: [...this.#options.older.describe()] });
  }
  tellUnread(): void {
    this.#unreadPace.due();
  }
  #tellUnread(): void {
    this.#rpc?.notify("connections.unread", { ports: [...this.#options.unread.describe()] });
  }
  #tellRefused(): void {
    for (const [interceptId, count] of this.#refused) this.#rpc?.notify("laptop.refused", { interceptId, count });
    this.#refused.clear();
  }
  #tellCopies(): void {
    for (const [interceptId, { copied, cut, reason }] of this.#copies) {
      const why = reason === undefined ? {} : { reason: reason.slice(0, 1000) };
      this.#rpc?.notify("copies.counted", { interceptId, copied, cut, ...why });
    }
    this.#copies.clear();
  }

  // The link's life

  /** Resolves when the link is given up: the manager ended it in order, or was not reached for long. */
  async run(): Promise<void> {
    const { clock, log } = this.#options;
    let retryMs = firstRetryMs;
    let lastUpMs = clock.now();
    while (!this.#ended.aborted && clock.now() - lastUpMs < forgetMs) {
      try {
        const reason = await this.#connectAndServe();
        lastUpMs = clock.now();
        retryMs = firstRetryMs;
        if (reason === undefined) break; // ended in order: nobody wants us there any more
      } catch (error) {
        this.#failure = toAppError(error);
        log.warn("manager not reached", { reason: this.#failure.message, retryMs });
        if (this.#failure.code === "denied") this.#tellWaiting(this.#failure); // another key: no retry mends that
      }
      await this.#pause(retryMs);
      retryMs = Math.min(retryMs * 2, lastRetryMs);
    }
    this.#connected.reject(this.#failure ?? new AppError("link_lost", "the traffic-manager ended the link"));
    log.info("manager forgotten", { namespace: this.#manager.namespace });
  }

  #tellWaiting(failure: AppError): void {
    this.#connected.reject(failure);
    this.#connected = Promise.withResolvers();
    this.#connected.promise.catch(() => undefined); // it may have no reader
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    using _timer = this.#options.clock.after(ms, resolve);
    await raceSignal(promise, this.#ended).catch(() => undefined); // the loop's condition ends it
    this.#wake = undefined;
  }

  /** Resolves with the reason when the link has ended again; undefined after an orderly end. */
  async #connectAndServe(): Promise<AppError | undefined> {
    const session = await this.#connect();
    const { served, applyRedirects, facts, log } = this.#options;
    try {
      const rpc = await this.#openApi(session);
      this.#session = session;
      const introducedBy = [...this.#introducers];
      await raceSignal(
        rpc.call(
          "arrive",
          { ...facts, introducedBy, filters: true, tls: true, probes: true, suspends: true },
          this.#ended,
        ),
        this.#ended,
      );
      this.#rpc = rpc;
      this.#failure = undefined;
      this.#connected.resolve();
      log.info("manager connected", { namespace: this.#manager.namespace });
      return await raceSignal(session.closed, this.#ended);
    } catch (error) {
      session.destroy(toAppError(error));
      throw error;
    } finally {
      this.#session = undefined;
      if (this.#rpc !== undefined) this.#tellWaiting(new AppError("link_lost", "the traffic-manager's link ended"));
      this.#rpc = undefined;
      served.clear(this);
      log.info("manager link ended", { namespace: this.#manager.namespace });
      applyRedirects().catch((error: unknown) => log.error("redirect not changed", { reason: String(error) }));
    }
  }

  /** The first of the manager's addresses that proves its key. */
  async #connect(): Promise<TunnelSession> {
    const { identity, clock, log, hello } = this.#options;
    const { podIps, port, fingerprint } = this.#manager;
    let failure = new AppError("unreachable", "the traffic-manager has no address");
    for (const host of podIps) {
      using limit = deadline(
        clock,
        attemptMs,
        `connecting to the traffic-manager at ${host} port ${port}`,
        this.#ended,
      );
      try {
        const transport = await connectPinned({
          identity,
          host,
          port,
          expectedFingerprint: fingerprint,
          signal: limit.signal,
        });
        const limits = { maxStreams: maxAgentStreams, budgetBytes: agentBudgetBytes };
        const options = { transport, hello, role: "opener", expectRole: "manager", limits, clock, log } as const;
        return await openSession({ ...options, signal: limit.signal });
      } catch (error) {
        this.#ended.throwIfAborted();
        failure = explain(error, host, port);
      }
    }
    throw failure;
  }

  async #openApi(session: TunnelSession): Promise<ManagerRpc> {
    session.onIncoming((incoming) => incoming.reject("unsupported", "an agent takes no streams"));
    const { callers, clock, log } = this.#options;
    using limit = deadline(clock, attemptMs, "the traffic-manager's API", this.#ended);
    const stream = await session.open({ kind: "rpc", api: "agent" }, limit.signal);
    const rpc: ManagerRpc = openRpc({
      stream,
      calls: agentToManagerApi,
      serves: {
        api: managerToAgentApi,
        handlers: {
          "intercepts.set": async ({ intercepts, suspended = [] }) => {
            const serving = this.#serve(intercepts); // at once: what ends below must not come back to the laptop
            this.#streams.suspend(suspended);
            const refused = await serving;
            rpc.notify("callers.kept", { ports: [...callers()] });
            this.tellOlder(rpc);
            this.tellUnread();
            log.info("intercepts set", { count: intercepts.length, refused: refused.length });
            if (refused.length === 0) return {};
            // The manager reads the fields; what is not named there is served.
            throw new AppError("not_interceptable", refused[0]?.message ?? "", { fields: { refused } });
          },
        },
      },
      sends: agentNotifications,
      log,
    });
    void rpc.closed.then((reason) => this.#endWithApi(session, reason));
    return rpc;
  }

  /** Ended in order, connections that a laptop has may go on for a moment. */
  async #endWithApi(session: TunnelSession, reason: AppError | undefined): Promise<void> {
    if (reason !== undefined) session.destroy(reason);
    using limit = deadline(this.#options.clock, closeMs, "the end of the traffic-manager's link");
    await session.close(limit.signal);
  }

  /** Puts the set in force; returns what could not be. */
  async #serve(intercepts: readonly ServedIntercept[]): Promise<readonly Refused[]> {
    const { served, applyRedirects } = this.#options;
    const refused = served.set(this, intercepts);
    try {
      await applyRedirects();
      return refused;
    } catch (error) {
      // Without its redirect an intercept would be active in name only.
      const { message } = toAppError(error);
      served.clear(this);
      return intercepts.map(({ id }) => ({ id, message }));
    }
  }
}

/** A silent address is what a NetworkPolicy looks like from here; say so. */
function explain(error: unknown, host: string, port: number): AppError {
  const failure = toAppError(error);
  if (!isAppError(failure, "timeout")) return failure;
  return new AppError("timeout", `the agent's pod cannot reach the traffic-manager at ${host} port ${port}`, {
    hint: `allow this pod to connect to port ${port} of the traffic-manager, for example in a NetworkPolicy`,
    cause: failure,
  });
}
