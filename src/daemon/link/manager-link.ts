// Keeps one tunnel session to the traffic-manager alive: opens a transport (the API server's port-forward), says HELLO
// and arrives. When the transport is lost the session goes on over another; where the far end knows it no more (another
// manager, or an older one) there is a new session. Both with back-off, until the scope ends. A transport that grows old,
// or does not answer, is left for the next one while it still stands.
// Invariant: at most one session is up, and `onUp` has resolved before anybody sees it through `current`.
import type { Duplex } from "node:stream";
import { linkSignals, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import { openRpc, type Rpc } from "#tunnel/rpc.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { managerApi, managerNotifications } from "#wire/manager-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { openLaptopSession } from "./laptop-session.ts";

export type ManagerRpc = Rpc<typeof managerApi, typeof managerNotifications>;
export type Arrival = ResultOf<typeof managerApi, "arrive">;

/** A session that stands, with the manager's answer to `arrive`. */
export interface ManagerConnection {
  readonly session: TunnelSession;
  readonly rpc: ManagerRpc;
  readonly arrival: Arrival;
}

/** What became of the link since it first stood. */
export interface LinkChanges {
  /** Transports that died. */
  readonly lost: number;
  /** Transports that were left for another one. */
  readonly replaced: number;
  /** How often a new session had to begin, which ends the streams of the one before. */
  readonly renewed: number;
}

export interface ManagerLinkOptions {
  readonly openTransport: (signal: AbortSignal) => Promise<Duplex>;
  readonly arrive: ParamsOf<typeof managerApi, "arrive">;
  /** Called before the connection becomes current: handlers are set and intercepts announced here. */
  readonly onUp: (connection: ManagerConnection) => Promise<void>;
  /** Called when the connection has become current. */
  readonly onCurrent: (connection: ManagerConnection) => void;
  readonly onDown: (reason: AppError) => void;
  /** Called instead of the two above when the connection that was down goes on, with all its streams. */
  readonly onResumed: (connection: ManagerConnection) => void;
  readonly clock: Clock;
  readonly log: Logger;
  readonly scope: Scope;
}

/** A transport that stands already, and who waits for the move. */
interface Offer {
  readonly transport: Duplex;
  readonly moved: (isMoved: boolean) => void;
}

/** chosen: balancers and API servers cut connections of an hour; all laptops of a team shall not move at once. */
const oldestMs = 54 * 60_000;
const spreadMs = 6 * 60_000;
/** chosen: a transport whose far end is silent for so long after a question, or for three of its round trips, is left. */
const patienceMs = 300;
const maxPatienceMs = 2000;
/** chosen: an attempt that was begun before the way changed may wait for what never comes. */
const staleMs = 2000;
/** chosen: the next one has twice the time, where news do not end and the way is slow. */
const lastStaleMs = 16_000;

/** Back-off between attempts, milliseconds; chosen: a restarted manager is back within a second or two. */
const firstRetryMs = 100;
const lastRetryMs = 3000;
/** A link that stood this long starts the back-off anew. */
const steadyMs = 10_000;
/** chosen: so many times a session goes on without a pause although its transports do not stand that long. */
const maxHurries = 10;

/** What a far end answers that will never go on with this session. */
const unknownThere = new Set<ErrorCode>(["not_found", "denied", "version_mismatch", "protocol"]);

export class ManagerLink {
  readonly #options: ManagerLinkOptions;
  #current: ManagerConnection | undefined;
  #ups = 0;
  #transport: Duplex | undefined;
  #transportChanged = Promise.withResolvers<void>();
  #offered: Offer | undefined;
  #changes = { lost: 0, replaced: 0, renewed: -1 };
  #problem: AppError | undefined;
  /** Ends the pause between two attempts. */
  #pausing: AbortController | undefined;
  #awaited: PromiseWithResolvers<void> | undefined;
  #onTransportLost: ((reason: AppError) => void) | undefined;
  /** How a transport ends by which a session has just gone on, and which may be lost in the same breath. */
  #ofNext: PromiseWithResolvers<AppError> | undefined;
  /** Ends the wait for the present transport's old age. */
  #leave: (() => void) | undefined;
  /** Gives up the attempt that is being made. */
  #attempting: AbortController | undefined;
  #staleMs = staleMs;

  constructor(options: ManagerLinkOptions) {
    this.#options = options;
  }

  get current(): ManagerConnection | undefined {
    return this.#current;
  }
  /** How many times there has come to be a connection, the same as before or another. */
  get ups(): number {
    return this.#ups;
  }
  /** What carries the connection, or carried it last. */
  get transport(): Duplex | undefined {
    return this.#transport;
  }
  /** Resolves when another transport than this carries the connection; rejects with the signal. */
  async replacedTransport(transport: Duplex | undefined, signal: AbortSignal): Promise<void> {
    while (this.#transport === transport) await raceSignal(this.#transportChanged.promise, signal);
  }
  /** Leaves the present transport for this one, which is destroyed when that cannot be. */
  async moveTo(transport: Duplex): Promise<boolean> {
    const isOver = this.#options.scope.signal.aborted || transport.destroyed;
    const mayMove = !isOver && this.#current?.session.resumable === true && this.#offered === undefined;
    if (!mayMove || this.#leave === undefined) {
      transport.destroy();
      return false;
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#offered = { transport, moved: resolve };
    this.#leave();
    return await promise;
  }
  get changes(): LinkChanges {
    return { ...this.#changes, renewed: Math.max(0, this.#changes.renewed) };
  }
  /** Why there is no connection now. */
  get problem(): AppError | undefined {
    return this.#current === undefined ? this.#problem : undefined;
  }
  /** The connection, or the error that says the manager is away. */
  require(): ManagerConnection {
    if (this.#current !== undefined) return this.#current;
    const why = this.#problem === undefined ? "" : ` (${this.#problem.message})`;
    throw new AppError("manager_unavailable", `the link to the traffic-manager is down${why}`, {
      hint: this.#problem?.hint ?? "it is being re-established, try again in a moment or see `telepresence status`",
    });
  }

  /** Tries at once instead of after the pause, and resolves when there is a connection and `ups` is higher than this. */
  async restored(signal: AbortSignal, lostUps: number): Promise<void> {
    if (this.#current !== undefined && this.#ups > lostUps) return;
    this.#awaited ??= Promise.withResolvers();
    this.#pausing?.abort();
    using either = linkSignals(signal, this.#options.scope.signal);
    await raceSignal(this.#awaited.promise, either.signal);
  }

  /**
   * The way to the cluster may have changed, or this machine has slept: whether the transport is good is asked now and
   * not waited for, and nothing that was begun before holds up the next one.
   */
  recheck(): void {
    this.#pausing?.abort();
    const attempting = this.#attempting;
    if (attempting !== undefined) {
      const stale = (): void => attempting.abort(new AppError("timeout", "the network changed meanwhile"));
      this.#options.clock.after(this.#staleMs, stale).unref();
    }
    const session = this.#current?.session;
    if (session?.resumable !== true) return; // nothing could take its place
    void session.probe(patienceWith(session.roundTripMs)).then((isThere) => {
      if (!isThere && this.#current?.session === session) this.#leave?.();
    });
  }

  /** Makes the first connection, whose failure is the caller's, then keeps it in the background. */
  async start(signal: AbortSignal): Promise<ManagerConnection> {
    const first = await this.#connect(signal);
    this.#options.scope.background("manager link", this.#keep(first));
    return first;
  }

  async #connect(signal: AbortSignal): Promise<ManagerConnection> {
    const { log } = this.#options;
    const transport = await this.#options.openTransport(signal);
    const session = await openLaptopSession(transport, this.#options, signal);
    session.onTransport({
      // One that is lost before it was of any use begins anew.
      lost: (reason) => (this.#onTransportLost ?? ((why) => session.destroy(why)))(reason),
      resumed: () => undefined,
    });
    try {
      const stream = await session.open({ kind: "rpc", api: "manager" }, signal);
      const rpc: ManagerRpc = openRpc({ stream, calls: managerApi, receives: managerNotifications, log });
      const arrival = await rpc.call("arrive", this.#options.arrive, signal);
      const connection = { session, rpc, arrival };
      await raceSignal(this.#options.onUp(connection), signal);
      this.#changes.renewed += 1;
      this.#carriedBy(transport);
      this.#up(connection, this.#options.onCurrent);
      log.info("manager link up", { manager: arrival.manager.podName, sessionId: arrival.sessionId });
      return connection;
    } catch (error) {
      session.destroy(toAppError(error));
      throw error;
    }
  }

  /** One attempt, which `recheck` may find too old. */
  async #attempt<T>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const attempting = new AbortController();
    this.#attempting = attempting;
    using either = linkSignals(signal, attempting.signal);
    try {
      return await work(either.signal);
    } finally {
      this.#attempting = undefined;
      this.#staleMs = attempting.signal.aborted ? Math.min(2 * this.#staleMs, lastStaleMs) : staleMs;
    }
  }

  async #keep(first: ManagerConnection): Promise<void> {
    const { clock, log, scope } = this.#options;
    let connection: ManagerConnection | undefined = first;
    let retryMs = firstRetryMs;
    let hurries = 0;
    while (!scope.signal.aborted) {
      if (connection !== undefined) {
        const upMs = clock.now();
        await this.#down(connection);
        hurries = clock.now() - upMs > steadyMs ? 0 : hurries + 1;
        if (hurries > maxHurries) retryMs = await this.#pause(retryMs);
        if (await this.#resumed(connection)) continue;
        connection = undefined;
        if (clock.now() - upMs > steadyMs) retryMs = firstRetryMs;
        // One that is lost as soon as it stands (two laptops with one identity) must not keep the cluster busy.
        else retryMs = await this.#pause(retryMs);
        if (scope.signal.aborted) return;
      }
      try {
        connection = await this.#attempt(scope.signal, (signal) => this.#connect(signal));
      } catch (error) {
        this.#problem = toAppError(error);
        log.warn("manager link attempt failed", { error: this.#problem.message, retryMs });
        retryMs = await this.#pause(retryMs);
      }
    }
    connection?.session.destroy();
  }

  /** Returns the next time's length. */
  async #pause(retryMs: number, signal = this.#options.scope.signal): Promise<number> {
    const pausing = new AbortController();
    this.#pausing = pausing;
    using either = linkSignals(signal, pausing.signal);
    await this.#options.clock.sleep(retryMs, either.signal).catch(() => undefined); // aborted: the loop's condition ends it
    return pausing.signal.aborted ? firstRetryMs : Math.min(retryMs * 2, lastRetryMs);
  }

  /** Waits until the connection cannot be used any more: its transport is lost and no other took over, or it is over. */
  async #down(connection: ManagerConnection): Promise<void> {
    const { session, rpc } = connection;
    const lost = this.#ofNext ?? Promise.withResolvers<AppError>();
    this.#ofNext = undefined;
    this.#onTransportLost = lost.resolve;
    void session.closed.then((error) =>
      lost.resolve(error ?? new AppError("link_lost", "the traffic-manager closed the link")),
    );
    const standing = new AbortController();
    using either = linkSignals(this.#options.scope.signal, standing.signal);
    const moving = session.resumable ? this.#replaceOld(session, either.signal, lost.resolve) : undefined;
    try {
      const reason = await raceSignal(lost.promise, this.#options.scope.signal);
      this.#onTransportLost = undefined;
      standing.abort(reason);
      await moving;
      this.#refuseOffer();
      this.#lost(reason);
      rpc.giveUpCalls(reason); // whoever asked is told now; what became of it is seen when the link is back
    } catch {
      session.destroy(); // the scope ended: nobody waits for this session any more
    }
  }

  /** While there is a transport: opens the next when it is old or does not answer, and only then leaves it. */
  async #replaceOld(session: TunnelSession, standing: AbortSignal, lose: (reason: AppError) => void): Promise<void> {
    const { clock, log } = this.#options;
    while (!standing.aborted) {
      const left = new AbortController();
      this.#leave = () => left.abort();
      using either = linkSignals(standing, left.signal);
      const ageMs = this.#offered === undefined ? oldestMs - Math.random() * spreadMs : 0;
      await clock.sleep(ageMs, either.signal).catch(() => undefined); // whatever ended it is seen below
      const offered = this.#takeOffer();
      const isSilent = offered === undefined && left.signal.aborted;
      const next = offered?.transport ?? (await this.#next(session, isSilent, standing));
      if (next === undefined) continue;
      try {
        await this.#attempt(standing, (signal) => session.resume(next, signal));
        this.#carriedBy(next);
        this.#changes.replaced += 1;
        log.info("manager link moved to another transport", { isSilent, isOffered: offered !== undefined });
        offered?.moved(true);
      } catch (error) {
        // Left between two: neither is there any more. What a direct way says of the session, a port-forward may not.
        if (offered === undefined && unknownThere.has(toAppError(error).code)) session.destroy();
        offered?.moved(false);
        lose(toAppError(error));
        return;
      }
    }
  }

  #takeOffer(): Offer | undefined {
    const offer = this.#offered;
    this.#offered = undefined;
    return offer;
  }

  #refuseOffer(): void {
    const offer = this.#takeOffer();
    offer?.transport.destroy();
    offer?.moved(false);
  }

  /** The next transport; undefined when it is not wanted any more. */
  async #next(session: TunnelSession, isSilent: boolean, standing: AbortSignal): Promise<Duplex | undefined> {
    let retryMs = firstRetryMs;
    while (!standing.aborted) {
      try {
        return await this.#attempt(standing, (signal) => this.#options.openTransport(signal));
      } catch (error) {
        if (standing.aborted) return undefined;
        this.#options.log.warn("no other transport for the manager link", {
          error: toAppError(error).message,
          retryMs,
        });
      }
      retryMs = await this.#pause(retryMs, standing);
      // Silent for a moment only.
      if (isSilent && (await session.probe(patienceWith(session.roundTripMs)))) return undefined;
    }
    return undefined;
  }

  /** Tries other transports for a session that stands. False when it is over, or the far end does not know it. */
  async #resumed(connection: ManagerConnection): Promise<boolean> {
    const { log, scope, openTransport, onResumed } = this.#options;
    const { session } = connection;
    let isOver = !session.resumable;
    void session.closed.then(() => (isOver = true));
    await Promise.resolve(); // it may be over already
    for (let retryMs = firstRetryMs; !isOver && !scope.signal.aborted;) {
      let transport: Duplex | undefined;
      try {
        await this.#attempt(scope.signal, async (signal) => {
          transport = await openTransport(signal);
          this.#ofNext = Promise.withResolvers();
          this.#onTransportLost = this.#ofNext.resolve;
          await session.resume(transport, signal);
        });
        if (transport !== undefined) this.#carriedBy(transport);
        this.#up(connection, onResumed);
        log.info("manager link resumed", { sessionId: connection.arrival.sessionId });
        return true;
      } catch (error) {
        this.#problem = toAppError(error);
        // Only what the far end says counts: the way to it can fail with the same codes, and be there the next time.
        if (transport !== undefined && unknownThere.has(this.#problem.code)) break;
        log.warn("manager link could not be resumed", { error: this.#problem.message, retryMs });
        retryMs = await this.#pause(retryMs);
      }
    }
    session.destroy();
    this.#ofNext = this.#onTransportLost = undefined;
    return false;
  }

  #up(connection: ManagerConnection, tell: (connection: ManagerConnection) => void): void {
    this.#current = connection;
    this.#ups += 1;
    tell(connection);
    this.#awaited?.resolve();
    this.#awaited = undefined;
  }

  #carriedBy(transport: Duplex): void {
    this.#transport = transport;
    this.#transportChanged.resolve();
    this.#transportChanged = Promise.withResolvers();
  }

  #lost(reason: AppError): void {
    this.#changes.lost += 1;
    this.#current = undefined;
    this.#problem = reason;
    this.#options.log.warn("manager link lost", { reason: reason.message });
    this.#options.onDown(reason);
  }
}

/** Long enough for an answer on a slow way. */
function patienceWith(roundTripMs = 0): number {
  return Math.min(Math.max(patienceMs, 3 * roundTripMs), maxPatienceMs);
}
