// The agents that are connected, and what each has confirmed. The whole set of intercepts goes to an agent each time;
// changes that come while a call is under way are folded into the next call.
import type { AppError } from "#base/error.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type {
  CallersOfPort,
  OlderConnectionsOfPort,
  ServedIntercept,
  UnreadConnectionsOfPort,
} from "#wire/agent-api.ts";
import type { InterceptPort, WorkloadRef } from "#wire/manager-api.ts";
import type { InterceptRecord } from "./intercepts.ts";
import type { SessionRecord } from "./sessions.ts";

/** What the registry needs of an agent's link. */
export interface AgentLink {
  readonly fingerprint: string;
  /** What the agent is configured for, as it says itself. */
  readonly workload: WorkloadRef;
  /** For the log, as the laptop that let it in names it; each laptop is told its own name for it. */
  readonly podName: string;
  readonly podIps: readonly string[];
  /** It honours filters; without, one would take everything. */
  readonly filters: boolean;
  /** It honours how TLS is to be read. */
  readonly tls: boolean;
  /** It honours the kind of an intercept; without, it would take what a wiretap only copies. */
  readonly wiretaps: boolean;
  /** It honours who is to answer probes. */
  readonly probes: boolean;
  /** It ends by itself what cannot wait when a laptop's link is lost. */
  readonly suspends: boolean;
  /** Resolves when the set is in force; rejects with what the agent could not serve. */
  setIntercepts(intercepts: readonly ServedIntercept[], suspended: readonly string[]): Promise<void>;
  close(): void;
  destroy(error: AppError): void;
}

export interface AgentRecordOptions {
  readonly link: AgentLink;
  /** What this agent should serve now. */
  readonly wanted: () => readonly InterceptRecord[];
  /** What it should serve if their laptops had a link. */
  readonly suspended: () => readonly InterceptRecord[];
  /** Called after each answer of the agent. */
  readonly onConfirmed: () => void;
  readonly log: Logger;
}

export class AgentRecord {
  readonly link: AgentLink;
  /** The sessions that it was admitted for. */
  readonly sessions = new Set<SessionRecord>();
  /** When the last of them went away. */
  untrustedSinceMs: number | undefined;
  readonly #options: AgentRecordOptions;
  #confirmed: ReadonlySet<InterceptRecord> = new Set();
  #refused: ReadonlyMap<InterceptRecord, string> = new Map();
  #callers: ReadonlyMap<string, CallersOfPort> = new Map();
  #older: ReadonlyMap<string, OlderConnectionsOfPort> = new Map();
  #unread: ReadonlyMap<string, UnreadConnectionsOfPort> = new Map();
  #sent: readonly InterceptRecord[] | undefined;
  #dirty = false;
  #running = false;
  #run: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(options: AgentRecordOptions) {
    this.#options = options;
    this.link = options.link;
  }

  /** What the agent says that its application sees of its callers, port by port. */
  describeCallers(ports: readonly CallersOfPort[]): void {
    this.#callers = new Map(ports.map((port) => [keyOf(port), port]));
  }
  callersOf(port: Pick<InterceptPort, "containerPort" | "protocol">): CallersOfPort | undefined {
    return this.#callers.get(keyOf(port));
  }

  /** What the agent says of connections that are older than the intercepts of its ports. */
  describeOlder(ports: readonly OlderConnectionsOfPort[]): void {
    this.#older = new Map(ports.map((port) => [keyOf(port), port]));
  }
  olderOf(port: Pick<InterceptPort, "containerPort" | "protocol">): OlderConnectionsOfPort | undefined {
    return this.#older.get(keyOf(port));
  }

  /** What the agent says of connections that the filters of its ports could not see into. */
  describeUnread(ports: readonly UnreadConnectionsOfPort[]): void {
    this.#unread = new Map(ports.map((port) => [keyOf(port), port]));
  }
  unreadOf(port: Pick<InterceptPort, "containerPort" | "protocol">): UnreadConnectionsOfPort | undefined {
    return this.#unread.get(keyOf(port));
  }

  serves(intercept: InterceptRecord): boolean {
    return this.#confirmed.has(intercept);
  }
  /** Why the agent does not serve it, when it said so. */
  refusal(intercept: InterceptRecord): string | undefined {
    return this.#refused.get(intercept);
  }
  /** The link is gone: nothing is confirmed any more, nobody waits. */
  end(): void {
    this.#ended = true;
    this.#confirmed = new Set();
  }

  /** Resolves when the agent has confirmed a set at least as new as this call, or is gone. Never rejects. */
  sync(): Promise<void> {
    this.#dirty = true;
    if (!this.#running) this.#run = this.#sendAll();
    return this.#run;
  }

  async #sendAll(): Promise<void> {
    this.#running = true;
    try {
      while (this.#dirty && !this.#ended) {
        this.#dirty = false;
        const wanted = this.#options.wanted();
        if (this.#sent === undefined || !sameItems(wanted, this.#sent)) await this.#send(wanted);
      }
    } finally {
      this.#running = false;
    }
  }

  async #send(wanted: readonly InterceptRecord[]): Promise<void> {
    const refused = new Map<InterceptRecord, string>();
    for (const intercept of wanted) {
      const why = this.#whyTooOld(intercept);
      if (why !== undefined) refused.set(intercept, why);
    }
    try {
      const suspended = this.#options.suspended().map(({ id }) => id);
      await this.link.setIntercepts(wanted.filter((intercept) => !refused.has(intercept)).map(served), suspended);
    } catch (error) {
      if (this.#ended) return;
      const failure = toAppError(error);
      const refusals = refusalsOf(error);
      this.#options.log.warn("agent did not take every intercept", { pod: this.link.podName, reason: failure.message });
      if (refusals === undefined) {
        // Nobody knows what the agent serves now: cut the link, which makes it pass everything to the application.
        this.link.destroy(failure);
        return;
      }
      for (const intercept of wanted) {
        const why = refusals.get(intercept.id);
        if (why !== undefined) refused.set(intercept, why);
      }
    }
    if (this.#ended) return;
    this.#sent = wanted;
    this.#refused = refused;
    this.#confirmed = new Set(wanted.filter((intercept) => !refused.has(intercept)));
    this.#options.onConfirmed();
  }

  /** It would take more than is wished, or pass what it should read. */
  #whyTooOld({ filter, spec }: InterceptRecord): string | undefined {
    const { wiretaps, filters, tls, probes, podName } = this.link;
    const old = `the agent of pod ${podName} is of an older version, which cannot`;
    const again = spec.kind ?? "intercept";
    const replace = `\`telepresence uninstall --agent ${spec.workload.name}\` and a new ${again} replace it`;
    if (spec.kind === "wiretap" && !wiretaps) return `${old} copy traffic; ${replace}`;
    if (filter !== undefined && !filters) return `${old} choose requests`;
    if (spec.tls !== undefined && !tls) return `${old} read TLS; ${replace}`;
    const wantsProbes = spec.probes !== undefined && spec.probes !== "app";
    return wantsProbes && !probes ? `${old} honour --probes ${spec.probes}; ${replace}` : undefined;
  }
}

function served({ id, session, spec }: InterceptRecord): ServedIntercept {
  const { kind, ports, existing, onRefused, probes, filter, tls } = spec;
  return {
    id,
    client: session.client,
    ports,
    ...(kind === undefined ? {} : { kind }),
    ...(existing === undefined ? {} : { existing }),
    ...(onRefused === undefined ? {} : { onRefused }),
    ...(probes === undefined ? {} : { probes }),
    ...(filter === undefined ? {} : { filter }),
    ...(tls === undefined ? {} : { tls }),
  };
}

function keyOf(port: Pick<InterceptPort, "containerPort" | "protocol">): string {
  return `${port.containerPort}/${port.protocol}`;
}

function sameItems(a: readonly InterceptRecord[], b: readonly InterceptRecord[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

/** The agent applies what it can and names the rest in the error's fields: `refused: [{ id, message }]`. */
function refusalsOf(error: unknown): ReadonlyMap<string, string> | undefined {
  if (!isAppError(error)) return undefined;
  const list = error.fields["refused"];
  if (!Array.isArray(list)) return undefined;
  const refusals = new Map<string, string>();
  for (const item of list as readonly unknown[]) {
    if (typeof item !== "object" || item === null) continue;
    const { id, message } = item as { id?: unknown; message?: unknown };
    if (typeof id === "string" && typeof message === "string") refusals.set(id, message.slice(0, 500));
  }
  return refusals;
}
