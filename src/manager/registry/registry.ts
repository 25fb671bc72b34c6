// Ties sessions, intercepts and agents together: each event changes one table, then tells exactly those it concerns.
// Agents first, laptops second: what `status` says is never ahead of what the agents do.
// Invariant: an agent is given an intercept only of a session that has a live link, vouches for that very agent and was
// named by it (admission.ts).
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { isSamePort } from "#wire/agent-api.ts";
import type { OlderConnectionsOfPort, UnreadConnectionsOfPort } from "#wire/agent-api.ts";
import { workloadKey } from "#wire/manager-api.ts";
import type { EndedIntercept, InterceptInfo, InterceptSpec, TrustedAgent } from "#wire/manager-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import { admitAgent } from "./admission.ts";
import type { Admission, AgentClaim } from "./admission.ts";
import type { AgentLink } from "./agents.ts";
import { AgentRecord } from "./agents.ts";
import type { InterceptRecord } from "./intercepts.ts";
import { InterceptTable } from "./intercepts.ts";
import { addCopies } from "./copies.ts";
import { describeCallers } from "./callers-address.ts";
import { trustedFor } from "./trusted-for.ts";
import { sumOlder } from "./older-connections.ts";
import { sumUnread } from "./unread-connections.ts";
import { compareTurns, describeOverlaps, describeTakenOver } from "./overlap.ts";
import type { Arrival, LaptopLink, SessionRecord } from "./sessions.ts";
import { SessionTable } from "./sessions.ts";
import type { RegistryWatcher } from "./watcher.ts";

/** chosen: how long a command waits for agents to confirm; an agent that is slower is cut soon after. */
const confirmMs = 2000;
/** chosen: an agent nobody vouches for is let go after this long; a laptop that comes back finds it. */
const untrustedGraceMs = 60_000;
const sweepMs = 30_000;
/** chosen: agents connected at once. */
const maxAgents = 5000;
/** chosen: as many as a session may have intercepts. */
const maxEnded = 200;

/** protocol: an owner whose laptop has been away for so long loses a conflict. */
const defaultIdleOwnerMs = 10 * 60_000;

export interface RegistryOptions {
  /** Tests shorten it. */
  readonly idleOwnerMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Where a caller's connection goes. */
export interface Route {
  readonly intercept: InterceptRecord;
  readonly link: LaptopLink;
  /** The agent's pod, as that laptop calls it. */
  readonly podName: string;
}

export class Registry implements Disposable {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #idleOwnerMs: number;
  readonly #sessions: SessionTable;
  readonly #intercepts = new InterceptTable();
  readonly #agents = new Map<string, AgentRecord>();
  readonly #toNotify = new Set<SessionRecord>();
  readonly #lastNotified = new WeakMap<SessionRecord, string>();
  readonly #sweeper: Disposable;
  #watcher: RegistryWatcher | undefined;

  constructor(options: RegistryOptions) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#idleOwnerMs = options.idleOwnerMs ?? defaultIdleOwnerMs;
    this.#sessions = new SessionTable(options.clock);
    this.#sweeper = options.clock.every(sweepMs, () => this.#sweep()).unref();
  }

  [Symbol.dispose](): void {
    this.#sweeper[Symbol.dispose]();
  }

  /** One watcher. */
  watch(watcher: RegistryWatcher): void {
    this.#watcher = watcher;
  }

  // Laptops

  arrive(arrival: Arrival, link: LaptopLink): SessionRecord {
    const { session, replaced } = this.#sessions.arrive(arrival, link);
    for (const old of replaced) {
      for (const [name, ended] of old.ended) session.ended.set(name, ended);
      const oldLink = old.link ?? old.waiting;
      this.#forget(old); // its intercepts are made again
      oldLink?.destroy(new AppError("cancelled", "the same laptop has connected anew"));
    }
    this.#log.info("session started", { sessionId: session.id, client: session.client });
    return session;
  }

  /** The link is gone: from now on the applications answer; the session waits for its laptop. */
  lose(session: SessionRecord): void {
    session.waiting = undefined;
    if (session.link === undefined) return;
    this.#sessions.lose(session);
    this.#log.info("session lost its link", { sessionId: session.id, client: session.client });
    this.#watcher?.changed();
    void Promise.all(this.#sync(this.#agentsServing(session)));
  }

  /** The link has no transport now. For agents and callers the session is lost, until it is resumed. */
  suspend(session: SessionRecord): void {
    const { link } = session;
    this.lose(session);
    session.waiting = link;
  }

  /** The link has a transport again: what was suspended is served again, and the laptop is told what it missed. */
  resume(session: SessionRecord): void {
    const { waiting } = session;
    if (waiting === undefined) return;
    this.#sessions.find(session, waiting);
    this.#log.info("session is back", { sessionId: session.id, client: session.client });
    for (const ended of session.ended.values()) waiting.notifyEnded(ended);
    for (const { fingerprint, podUid } of session.trusted.values()) {
      if (this.#agents.get(fingerprint)?.sessions.has(session) !== true) waiting.notifyAgentLost(podUid);
    }
    this.#lastNotified.delete(session);
    this.#notifySoon(session);
    void Promise.all(this.#sync(this.#agentsServing(session)));
  }

  /** Ends the session and its intercepts without waiting for anybody. */
  forget(session: SessionRecord): void {
    for (const { id } of session.intercepts.values()) this.#watcher?.ended(id);
    this.#forget(session);
  }
  #forget(session: SessionRecord): void {
    const agents = this.#agentsServing(session);
    for (const intercept of session.intercepts.values()) this.#intercepts.delete(intercept);
    this.#sessions.forget(session);
    const now = this.#clock.now();
    for (const agent of agents) {
      agent.sessions.delete(session);
      if (agent.sessions.size === 0) agent.untrustedSinceMs ??= now;
    }
    void Promise.all(this.#sync(agents));
    this.#log.info("session ended", { sessionId: session.id, client: session.client });
    this.#watcher?.changed();
  }

  /** Ends the session; resolves when the agents have confirmed that new connections go to the applications. */
  async depart(session: SessionRecord, signal: AbortSignal): Promise<void> {
    await this.#drain([...session.intercepts.values()], signal);
    this.forget(session);
  }

  /** Opens the door to these keys; what their agents may serve is decided when they name the session (`admit`). */
  trust(session: SessionRecord, agents: readonly TrustedAgent[]): void {
    this.#sessions.trust(
      session,
      agents,
      (fingerprint) => this.#agents.get(fingerprint)?.sessions.has(session) ?? false,
    );
    for (const { fingerprint } of agents) {
      const agent = this.#agents.get(fingerprint);
      if (agent?.sessions.has(session)) void agent.sync(); // it may be of another workload now
    }
    this.#notifySoon(session);
  }

  /**
   * Resolves when the agents that are connected have confirmed, or after two seconds with the state as it is then.
   * `createdAtMs` is of one that is created again.
   */
  async create(
    session: SessionRecord,
    spec: InterceptSpec,
    signal: AbortSignal,
    createdAtMs?: number,
  ): Promise<InterceptInfo> {
    if (session.link === undefined) throw new AppError("link_lost", "this session has ended");
    const now = { nowMs: this.#clock.now(), nowWallMs: this.#clock.wallMs(), idleOwnerMs: this.#idleOwnerMs };
    const { record, displaced } = this.#intercepts.add({ session, spec, createdAtMs, ...now });
    for (const old of displaced) {
      this.#log.info("intercept lost its port to another laptop", { interceptId: old.id });
      this.#tellEnded(old, "taken_over", session.client);
      this.#watcher?.ended(old.id);
    }
    this.#log.info("intercept created", { interceptId: record.id, client: session.client });
    await this.#confirmed(this.#sync([record, ...displaced].flatMap((one) => this.#agentsOf(one))), signal);
    this.#notifySoon(session);
    for (const other of record.overlaps) this.#notifySoon(other.session);
    return { ...this.describe(record), ...describeTakenOver(displaced, now) };
  }

  async remove(session: SessionRecord, id: string, signal: AbortSignal): Promise<void> {
    const record = this.#intercepts.get(id);
    if (record === undefined || record.session !== session) {
      throw new AppError("intercept_not_found", `intercept "${id}" is not one of this session's`);
    }
    await this.#drain([record], signal);
    this.#notifySoon(session);
    this.#log.info("intercept removed", { interceptId: id, client: session.client });
  }

  /** Somebody who may act inside this agent's container ends an intercept that it may serve, whoever's it is. */
  async revoke(agent: AgentRecord, id: string, by: string, signal: AbortSignal): Promise<void> {
    const record = this.#intercepts.get(id);
    if (record === undefined || trustedFor(record, agent) === undefined) {
      throw new AppError("intercept_not_found", `intercept "${id}" is not one of this agent's workload`);
    }
    await this.end(record, by, signal);
  }

  /** For somebody else than its owner, who is told. */
  async end(record: InterceptRecord, by: string, signal: AbortSignal): Promise<void> {
    this.#log.info("intercept revoked", { interceptId: record.id, client: record.session.client, by });
    this.#tellEnded(record, "revoked", by);
    await this.#drain([record], signal);
    this.#notifySoon(record.session);
  }

  find(id: string): InterceptRecord | undefined {
    return this.#intercepts.get(id);
  }
  /** Whether it has not ended; its laptop may be away. */
  knows(session: SessionRecord): boolean {
    return this.#sessions.get(session.id) === session;
  }

  list(): readonly InterceptInfo[] {
    return [...this.#intercepts.all()].map((record) => this.describe(record));
  }

  // Agents

  isTrusted(fingerprint: string): boolean {
    return this.#sessions.isTrustedByLive(fingerprint);
  }

  /** Whom this agent may serve; throws `denied` when it is nobody. */
  admit(claim: AgentClaim): Admission {
    return admitAgent(this.#sessions, claim);
  }

  /** The admitted agent's link stands. An older link of the same key is cut. */
  connectAgent(link: AgentLink, sessions: readonly SessionRecord[]): AgentRecord {
    const { fingerprint } = link;
    if (this.#agents.size >= maxAgents) throw new AppError("busy", `${maxAgents} agents are connected, expected fewer`);
    const old = this.#agents.get(fingerprint);
    old?.end();
    old?.link.destroy(new AppError("cancelled", "the same agent has connected anew"));
    const agent: AgentRecord = new AgentRecord({
      link,
      wanted: () => this.#wantedBy(agent).filter(({ session }) => session.link !== undefined),
      suspended: () => this.#wantedBy(agent).filter(({ session }) => session.link === undefined),
      onConfirmed: () => this.#notifyServed(agent),
      log: this.#log,
    });
    for (const session of sessions) agent.sessions.add(session);
    for (const session of old?.sessions ?? []) agent.sessions.add(session); // named by the same key before
    this.#agents.set(fingerprint, agent);
    this.#log.info("agent connected", { pod: link.podName, agents: this.#agents.size });
    void agent.sync();
    return agent;
  }

  /** The agent names sessions whose laptops came to it after its link stood. Throws `denied`. */
  introduceAgent(agent: AgentRecord, introducedBy: readonly string[]): void {
    const { fingerprint, workload } = agent.link;
    for (const session of this.admit({ fingerprint, workload, introducedBy }).sessions) agent.sessions.add(session);
    agent.untrustedSinceMs = undefined;
    void agent.sync();
    this.#notifyServed(agent);
  }

  loseAgent(agent: AgentRecord): void {
    agent.end();
    const { fingerprint, podName } = agent.link;
    if (this.#agents.get(fingerprint) !== agent) return; // it came back on another link
    this.#agents.delete(fingerprint);
    this.#log.info("agent lost", { pod: podName, agents: this.#agents.size });
    for (const session of agent.sessions) {
      const podUid = session.trusted.get(fingerprint)?.podUid;
      if (podUid !== undefined) session.link?.notifyAgentLost(podUid);
    }
    this.#notifyServed(agent);
  }

  countRefused(agent: AgentRecord, interceptId: string, count: number): void {
    const record = this.#intercepts.get(interceptId);
    if (record === undefined || trustedFor(record, agent) === undefined) return;
    // A sum that is no safe integer any more would fit no schema, and the agent is not trusted with that.
    record.refusedByLaptop = Math.min(record.refusedByLaptop + count, Number.MAX_SAFE_INTEGER);
    this.#notifySoon(record.session);
  }

  countCopies(agent: AgentRecord, interceptId: string, counts: NonNullable<InterceptInfo["copies"]>): void {
    const record = this.#intercepts.get(interceptId);
    if (record === undefined || trustedFor(record, agent) === undefined) return;
    record.copies = addCopies(record.copies, counts);
    this.#notifySoon(record.session);
  }

  describeOlder(agent: AgentRecord, ports: readonly OlderConnectionsOfPort[]): void {
    agent.describeOlder(ports);
    this.#notifyServed(agent);
  }

  describeUnread(agent: AgentRecord, ports: readonly UnreadConnectionsOfPort[]): void {
    agent.describeUnread(ports);
    this.#notifyServed(agent);
  }

  /** Where this agent's stream goes; throws `not_found`, `denied` or `link_lost`. */
  route(agent: AgentRecord, request: Extract<OpenRequest, { kind: "inbound" }>): Route {
    const intercept = this.#intercepts.get(request.interceptId);
    if (intercept === undefined) throw new AppError("not_found", `intercept "${request.interceptId}" does not exist`);
    const trusted = trustedFor(intercept, agent);
    if (trusted === undefined) {
      throw new AppError("denied", `intercept "${request.interceptId}" is not one this agent was introduced for`);
    }
    if (!intercept.spec.ports.some((port) => isSamePort(port, request))) {
      throw new AppError(
        "denied",
        `intercept "${request.interceptId}" has no port ${request.containerPort}/${request.protocol}`,
      );
    }
    const { link } = intercept.session;
    if (link === undefined) throw new AppError("link_lost", "the laptop's link is lost");
    return { intercept, link, podName: trusted.podName };
  }

  describe(record: InterceptRecord): InterceptInfo {
    const serving = this.#agentsOf(record).filter((agent) => agent.serves(record));
    const callerAddress = describeCallers(record, serving);
    const ports = serving.flatMap((agent) => record.spec.ports.map((port) => agent.olderOf(port)));
    const olderConnections = sumOlder(ports.filter((port) => port !== undefined));
    const unreadConnections = sumUnread(record, serving);
    const overlaps = describeOverlaps(record);
    return {
      id: record.id,
      spec: record.spec,
      client: record.session.client,
      sessionId: record.session.id,
      ...this.#stateOf(record, serving.length > 0),
      pods: serving.flatMap((agent) => {
        const trusted = trustedFor(record, agent);
        return trusted === undefined
          ? []
          : [{ name: trusted.podName, uid: trusted.podUid, ip: agent.link.podIps[0] ?? "" }];
      }),
      refusedByLaptop: record.refusedByLaptop,
      ...(record.copies === undefined ? {} : { copies: record.copies }),
      ...(callerAddress === undefined ? {} : { callerAddress }),
      ...(olderConnections === undefined ? {} : { olderConnections }),
      ...(unreadConnections === undefined ? {} : { unreadConnections }),
      ...(overlaps === undefined ? {} : { overlaps }),
      createdAtMs: record.createdAtMs,
    };
  }

  // Inside

  #stateOf(record: InterceptRecord, served: boolean): Pick<InterceptInfo, "state" | "message"> {
    if (record.session.link === undefined) return { state: "suspended", message: "the laptop's link is lost" };
    if (record.draining) return { state: "removed", message: "" };
    if (served) return { state: "active", message: "" };
    const agents = this.#agentsOf(record);
    const refusal = agents.map((agent) => agent.refusal(record)).find((why) => why !== undefined);
    if (refusal !== undefined) return { state: "error", message: refusal };
    const { kind, name } = record.spec.workload;
    const message =
      agents.length === 0
        ? `no agent of ${kind} ${name} is connected to the traffic-manager yet`
        : `waiting for ${agents.length} agents of ${kind} ${name} to confirm`;
    return { state: "waiting", message };
  }

  /** The connected agents that may serve the intercept. */
  #agentsOf(record: InterceptRecord): readonly AgentRecord[] {
    const agents: AgentRecord[] = [];
    for (const fingerprint of record.session.trusted.keys()) {
      const agent = this.#agents.get(fingerprint);
      if (agent !== undefined && trustedFor(record, agent) !== undefined) agents.push(agent);
    }
    return agents;
  }

  /** Those that the agent serves when their laptops have a link. */
  #wantedBy(agent: AgentRecord): readonly InterceptRecord[] {
    const records = [...this.#intercepts.ofWorkload(workloadKey(agent.link.workload))];
    return records
      .filter((record) => !record.draining && trustedFor(record, agent) !== undefined)
      .toSorted(compareTurns);
  }

  #agentsServing(session: SessionRecord): readonly AgentRecord[] {
    const agents: AgentRecord[] = [];
    for (const fingerprint of session.trusted.keys()) {
      const agent = this.#agents.get(fingerprint);
      if (agent?.sessions.has(session)) agents.push(agent);
    }
    return agents;
  }

  /** A laptop that is away now, or whose link loses the news, hears of it when it is back. */
  #tellEnded({ id, session, spec }: InterceptRecord, reason: EndedIntercept["reason"], by: string): void {
    const ended = { id, reason, by, atMs: this.#clock.wallMs() };
    session.ended.delete(spec.name);
    session.ended.set(spec.name, ended);
    const [oldest] = session.ended.keys();
    if (session.ended.size > maxEnded && oldest !== undefined) session.ended.delete(oldest);
    session.link?.notifyEnded(ended);
  }

  #sync(agents: readonly AgentRecord[]): readonly Promise<void>[] {
    return agents.map((agent) => agent.sync());
  }

  async #drain(records: readonly InterceptRecord[], signal: AbortSignal): Promise<void> {
    for (const record of records) record.draining = true;
    await this.#confirmed(this.#sync(records.flatMap((record) => this.#agentsOf(record))), signal);
    for (const record of records) {
      for (const other of record.overlaps) this.#notifySoon(other.session);
      this.#intercepts.delete(record);
      this.#watcher?.ended(record.id);
    }
  }

  async #confirmed(waits: readonly Promise<void>[], signal: AbortSignal): Promise<void> {
    if (waits.length === 0) return;
    using limit = deadline(this.#clock, confirmMs, "the agents' confirmation", signal);
    try {
      await raceSignal(Promise.all(waits), limit.signal);
    } catch (error) {
      this.#log.warn("agents did not confirm in time", { reason: String(error) });
    }
  }

  #notifyServed(agent: AgentRecord): void {
    for (const session of agent.sessions) this.#notifySoon(session);
  }

  /** Several changes of one turn make one notification; one that says nothing new is not sent. */
  #notifySoon(session: SessionRecord): void {
    if (this.#toNotify.size === 0) queueMicrotask(() => this.#notify());
    this.#toNotify.add(session);
    this.#watcher?.changed();
  }
  #notify(): void {
    const sessions = [...this.#toNotify];
    this.#toNotify.clear();
    for (const session of sessions) {
      if (session.link === undefined) continue;
      const intercepts = [...session.intercepts.values()].map((record) => this.describe(record));
      const text = JSON.stringify(intercepts);
      if (this.#lastNotified.get(session) === text) continue;
      this.#lastNotified.set(session, text);
      try {
        session.link.notifyIntercepts(intercepts);
      } catch (error) {
        // Nobody waits for this turn of the loop: thrown further, it would end the process for everybody.
        this.#log.error("session not notified", { sessionId: session.id, error: String(error) });
      }
    }
  }

  #sweep(): void {
    for (const session of this.#sessions.expired()) {
      const { waiting } = session;
      this.forget(session);
      waiting?.destroy(new AppError("timeout", "the laptop has been away for too long"));
    }
    for (const link of this.#sessions.crowdedOut()) {
      link.destroy(new AppError("busy", "too much is kept for laptops that are away"));
    }
    const now = this.#clock.now();
    for (const agent of this.#agents.values()) {
      if (agent.untrustedSinceMs !== undefined && now - agent.untrustedSinceMs >= untrustedGraceMs) agent.link.close();
    }
  }
}
