// The truth about one intercept: whether its callers reach the agents. Canaries go where callers go, to the pods and to
// the services' cluster IPs, when it becomes active and after each change; to ports that speak HTTP again and again,
// since only those canaries leave no trace where they go astray.
// Invariant: a result is of the agents that serve now; it warns, and ends nothing.
import { deadline, raceSignal } from "#base/abort.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { CallerPathState } from "#wire/manager-api.ts";
import type { Changes } from "./active-wait.ts";
import { CanaryRound, type RoundOptions, type RoundResults } from "./canary-round.ts";
import type { IntroducedAgent } from "./introductions.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";

export interface CallerPathOptions extends RoundOptions {
  readonly name: string;
  /** Those that serve it; undefined unless it is active. */
  readonly agents: () => readonly IntroducedAgent[] | undefined;
  readonly manager: () => ManagerConnection | undefined;
  /** Called when the verdict is another one. */
  readonly onVerdict: () => void;
  /** Woken when who serves it may have changed. */
  readonly changes: Changes;
  readonly log: Logger;
}

/** chosen: a command waits for the first result so long at most. */
const firstMs = 3000;
const repeatMs = 30_000;
/** chosen: after a change, until what belongs to it has happened too. */
const settleMs = 250;
/** chosen: pods that are tried. */
const maxPods = 64;

export class CallerPath implements AsyncDisposable {
  readonly #options: CallerPathOptions;
  readonly #scope: Scope;
  readonly #first = Promise.withResolvers<void>();
  /** By where it was sent to. */
  #results: RoundResults = new Map();
  #situation = "";

  constructor(options: CallerPathOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  /** Begins; resolves with what is to be said when the first result is there, or when that takes too long. */
  async start(signal: AbortSignal): Promise<readonly string[]> {
    this.#scope.background("canaries", this.#run());
    using limit = deadline(this.#options.clock, firstMs, "the first canary", signal);
    await raceSignal(this.#first.promise, limit.signal).catch((error: unknown) => {
      if (!isAppError(error, "timeout")) throw error;
    });
    const { verdict, reason } = this.state ?? {};
    return verdict === "by-passed" ? [`callers may not reach the traffic-agent: ${reason ?? ""}`] : [];
  }

  /** Undefined before the first result. */
  get state(): CallerPathState | undefined {
    if (this.#results.size === 0) return undefined;
    const results = [...this.#results];
    const reached = results.filter(([, { kind }]) => kind === "agent");
    const through = reached.map(([where]) => where);
    const ageMs = this.#options.clock.now() - Math.min(...results.map(([, { atMs }]) => atMs));
    const elsewhere = results.find(([, { kind }]) => kind === "elsewhere")?.[1];
    if (elsewhere?.kind === "elsewhere") return { verdict: "by-passed", ageMs, through, reason: elsewhere.reason };
    if (reached.length > 0) return { verdict: "verified", ageMs, through };
    const unknown = results.find(([, { kind }]) => kind === "unknown")?.[1];
    return { verdict: "unknown", ageMs, through, ...(unknown?.kind === "unknown" ? { reason: unknown.reason } : {}) };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope[Symbol.asyncDispose]();
  }

  async #run(): Promise<void> {
    const { signal } = this.#scope;
    const { name, log } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#round();
      } catch (error) {
        if (signal.aborted) return;
        log.warn("canaries failed", { name, error: toAppError(error).message });
      }
      this.#first.resolve();
      await this.#pause().catch(() => undefined); // ended: the loop's condition ends it
    }
  }

  /** Until something has changed, or it is time to look again. */
  async #pause(): Promise<void> {
    const { changes, clock } = this.#options;
    using limit = deadline(clock, repeatMs, "a change", this.#scope.signal);
    try {
      while (this.#describe() === this.#situation) await changes.next(limit.signal);
    } catch (error) {
      if (isAppError(error, "timeout")) return;
      throw error;
    }
    await clock.sleep(settleMs, this.#scope.signal);
  }

  /** Who serves it, as text. */
  #describe(): string {
    const agents = this.#options.agents()?.map(({ fingerprint }) => fingerprint);
    const sessionId = this.#options.manager()?.arrival.sessionId;
    return agents === undefined || sessionId === undefined ? "" : [sessionId, ...agents].join(" ");
  }

  #settle(results: RoundResults): void {
    const before = this.state?.verdict;
    this.#results = results;
    if (this.state?.verdict !== before) this.#options.onVerdict();
  }

  async #round(): Promise<void> {
    const { clock, log, name } = this.#options;
    const session = this.#options.manager()?.session;
    const agents = this.#options.agents()?.slice(0, maxPods);
    const situation = this.#describe();
    const isNew = situation !== this.#situation;
    this.#situation = situation;
    if (session === undefined || agents === undefined || agents.length === 0) {
      this.#results = new Map();
      return;
    }
    const startMs = clock.now();
    const round = new CanaryRound(this.#options, { session, agents, old: isNew ? new Map() : this.#results });
    const results = await round.run(this.#scope.signal);
    if (this.#describe() !== situation) return; // it was of others
    this.#settle(results);
    const { verdict, reason } = this.state ?? {};
    if (verdict === "by-passed") log.warn("callers do not reach the agent", { name, reason });
    else if (isNew) log.info("canaries sent", { name, verdict, reason, tookMs: Math.round(clock.now() - startMs) });
  }
}
