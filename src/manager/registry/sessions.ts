// Who is connected, and which agents each laptop vouches for. A session has at most one live link; without one it is
// kept for a while (its intercepts suspended) and forgotten when its laptop arrives anew.
// Invariant: only sessions with a live link let an agent in (admission.ts) or receive its streams.
import { randomUUID } from "node:crypto";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { managerKeptBytes } from "#wire/limits.ts";
import type { EndedIntercept, InterceptInfo, TrustedAgent } from "#wire/manager-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { InterceptRecord } from "./intercepts.ts";

/** chosen: how long a session without a link is kept, and how many of them. */
const graceMs = 24 * 60 * 60 * 1000;
const maxLostSessions = 1000;
/** chosen: laptops connected at once. */
const maxLiveSessions = 2000;
/** chosen: agents one session may vouch for; the oldest that are not connected make room. */
const maxTrusted = 5000;

/** What the registry needs of a laptop's link. */
export interface LaptopLink {
  /** What it holds for a laptop that does not read. */
  readonly keptBytes: number;
  notifyIntercepts(intercepts: readonly InterceptInfo[]): void;
  notifyAgentLost(podUid: string): void;
  notifyEnded(ended: EndedIntercept): void;
  /** One that `mayWait` is left alone for a while when the link has no transport; its agent ends it where it must. */
  openInbound(request: OpenRequest, mayWait: boolean, signal: AbortSignal): Promise<TunnelStream>;
  destroy(error: AppError): void;
}

export interface Arrival {
  readonly client: string;
  readonly installId: string;
  readonly version: string;
  readonly namespace: string;
}

export interface SessionRecord extends Arrival {
  readonly id: string;
  link: LaptopLink | undefined;
  /** The link while it has no transport: it may come back. */
  waiting: LaptopLink | undefined;
  lostAtMs: number | undefined;
  /** By fingerprint. */
  readonly trusted: Map<string, TrustedAgent>;
  /** By the intercept's name. */
  readonly intercepts: Map<string, InterceptRecord>;
  /** By the intercept's name: those that somebody else ended. The laptop is told when it is back. */
  readonly ended: Map<string, EndedIntercept>;
}

export class SessionTable {
  readonly #clock: Clock;
  readonly #sessions = new Map<string, SessionRecord>();
  /** Which sessions vouch for an agent; so that a stranger's handshake costs one look-up. */
  readonly #byFingerprint = new Map<string, Set<SessionRecord>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get liveCount(): number {
    let count = 0;
    for (const session of this.#sessions.values()) if (session.link !== undefined) count += 1;
    return count;
  }
  get(id: string): SessionRecord | undefined {
    return this.#sessions.get(id);
  }
  all(): Iterable<SessionRecord> {
    return this.#sessions.values();
  }

  /** A new session. `replaced` are earlier ones of the same laptop: the caller ends them. */
  arrive(arrival: Arrival, link: LaptopLink): { session: SessionRecord; replaced: readonly SessionRecord[] } {
    const replaced = [...this.#sessions.values()].filter(
      (other) => other.installId === arrival.installId && other.client === arrival.client,
    );
    if (this.liveCount - replaced.length >= maxLiveSessions) {
      throw new AppError("busy", `${maxLiveSessions} laptops are connected to this traffic-manager, expected fewer`);
    }
    const session: SessionRecord = {
      ...arrival,
      id: randomUUID(),
      link,
      waiting: undefined,
      lostAtMs: undefined,
      trusted: new Map(),
      intercepts: new Map(),
      ended: new Map(),
    };
    this.#sessions.set(session.id, session);
    return { session, replaced };
  }

  lose(session: SessionRecord): void {
    session.link = undefined;
    session.lostAtMs = this.#clock.now();
  }

  find(session: SessionRecord, link: LaptopLink): void {
    session.link = link;
    session.waiting = undefined;
    session.lostAtMs = undefined;
  }

  forget(session: SessionRecord): void {
    session.link = undefined;
    session.waiting = undefined;
    this.#sessions.delete(session.id);
    for (const fingerprint of session.trusted.keys()) this.#untrust(session, fingerprint);
    session.trusted.clear();
  }

  /** Sessions that have been without a link for too long, or that are too many, oldest first. */
  expired(): readonly SessionRecord[] {
    const lost = [...this.#sessions.values()]
      .filter((session) => session.lostAtMs !== undefined)
      .toSorted((a, b) => (a.lostAtMs ?? 0) - (b.lostAtMs ?? 0));
    const surplus = Math.max(0, lost.length - maxLostSessions);
    const now = this.#clock.now();
    return lost.filter((session, index) => index < surplus || now - (session.lostAtMs ?? now) >= graceMs);
  }

  /** Links that wait for a transport while others, away for a shorter time, hold all that there is room for. */
  crowdedOut(): readonly LaptopLink[] {
    const waiting = [...this.#sessions.values()]
      .toSorted((a, b) => (b.lostAtMs ?? 0) - (a.lostAtMs ?? 0))
      .flatMap((session) => session.waiting ?? []);
    let keptBytes = 0;
    return waiting.filter((link) => (keptBytes += link.keptBytes) > managerKeptBytes);
  }

  trust(session: SessionRecord, agents: readonly TrustedAgent[], isConnected: (fingerprint: string) => boolean): void {
    for (const agent of agents) {
      // Deleting first moves it to the end: the order of a Map is the order of age.
      session.trusted.delete(agent.fingerprint);
      session.trusted.set(agent.fingerprint, agent);
      let sessions = this.#byFingerprint.get(agent.fingerprint);
      if (sessions === undefined) this.#byFingerprint.set(agent.fingerprint, (sessions = new Set()));
      sessions.add(session);
    }
    for (const fingerprint of session.trusted.keys()) {
      if (session.trusted.size <= maxTrusted) break;
      if (isConnected(fingerprint)) continue;
      session.trusted.delete(fingerprint);
      this.#untrust(session, fingerprint);
    }
    if (session.trusted.size > maxTrusted) {
      throw new AppError(
        "busy",
        `this session vouches for ${session.trusted.size} agents, expected at most ${maxTrusted}`,
      );
    }
  }

  /** The sessions that vouch for this agent, live or not. */
  trusting(fingerprint: string): ReadonlySet<SessionRecord> {
    return this.#byFingerprint.get(fingerprint) ?? new Set();
  }
  isTrustedByLive(fingerprint: string): boolean {
    for (const session of this.trusting(fingerprint)) if (session.link !== undefined) return true;
    return false;
  }

  #untrust(session: SessionRecord, fingerprint: string): void {
    const sessions = this.#byFingerprint.get(fingerprint);
    sessions?.delete(session);
    if (sessions?.size === 0) this.#byFingerprint.delete(fingerprint);
  }
}
