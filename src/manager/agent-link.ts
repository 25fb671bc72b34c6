// One agent's link: TLS with both keys pinned has proved who it is before anything here runs. It serves the sessions that
// it names and that vouch for it; what they say of its pod counts, and of its workload both must say the same.
// Invariant: an agent that is not in the registry has no streams.
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import { agentNotifications, agentToManagerApi, managerToAgentApi } from "#wire/agent-api.ts";
import type { Feature, Hello } from "#wire/hello.ts";
import { agentBudgetBytes, maxAgentStreams } from "#wire/limits.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import { relayInbound } from "./inbound/relay.ts";
import { printable } from "./printable.ts";
import type { RefusalLog } from "./refusal-log.ts";
import type { AgentLink, AgentRecord } from "./registry/agents.ts";
import type { Registry } from "./registry/registry.ts";

/** chosen: a link that has not arrived by then is closed. */
const arriveMs = 10_000;
/** chosen: an agent that does not confirm a set by then is cut, which makes it serve nothing. */
const setMs = 5000;
/** chosen: how long a link that is no longer wanted may take to end. */
const closeMs = 2000;

export interface AgentDoor {
  readonly registry: Registry;
  readonly hello: Hello;
  readonly refusals: RefusalLog;
  readonly clock: Clock;
  readonly log: Logger;
}

type Arrival = ParamsOf<typeof agentToManagerApi, "arrive">;
type AgentRpc = Rpc<typeof managerToAgentApi, typeof agentNotifications>;

/** Says HELLO and serves the agent; resolves once the session stands. */
export async function acceptAgent(
  transport: Duplex,
  fingerprint: string,
  door: AgentDoor,
  signal: AbortSignal,
): Promise<Agent> {
  const { clock, log, hello } = door;
  const limits = { maxStreams: maxAgentStreams, budgetBytes: agentBudgetBytes };
  const options = { transport, hello, role: "accepter", expectRole: "agent", limits, clock, log, signal } as const;
  const session = await openSession(options);
  const agent = new Agent(session, fingerprint, door);
  agent.serve();
  return agent;
}

export class Agent {
  readonly closed: Promise<unknown>;
  readonly #session: TunnelSession;
  readonly #fingerprint: string;
  readonly #door: AgentDoor;
  #rpc: AgentRpc | undefined;
  #record: AgentRecord | undefined;

  constructor(session: TunnelSession, fingerprint: string, door: AgentDoor) {
    this.#session = session;
    this.#fingerprint = fingerprint;
    this.#door = door;
    this.closed = session.closed;
  }

  /** Ends in order; what is still open when the signal aborts is cut. */
  close(signal: AbortSignal): Promise<void> {
    this.#rpc?.dispose();
    return this.#session.close(signal);
  }

  serve(): void {
    const patience = this.#door.clock.after(arriveMs, () => {
      if (this.#record === undefined)
        this.#session.destroy(new AppError("timeout", "the agent did not arrive in time"));
    });
    this.#session.onIncoming((incoming) => this.#accept(incoming));
    void this.#session.closed.then(() => {
      patience[Symbol.dispose]();
      if (this.#record !== undefined) this.#door.registry.loseAgent(this.#record);
    });
  }

  #accept(incoming: IncomingStream): void {
    if (incoming.request.kind === "rpc") this.#acceptRpc(incoming);
    else if (this.#record === undefined) incoming.reject("denied", "this agent has not arrived");
    else void relayInbound(incoming, this.#record, this.#door);
  }

  #acceptRpc(incoming: IncomingStream): void {
    if (this.#rpc !== undefined || incoming.request.kind !== "rpc" || incoming.request.api !== "agent") {
      incoming.reject("denied", 'expected one rpc stream of the api "agent"');
      return;
    }
    const rpc: AgentRpc = openRpc({
      stream: incoming.accept(),
      calls: managerToAgentApi,
      serves: {
        api: agentToManagerApi,
        handlers: {
          arrive: (facts) => {
            if (this.#record !== undefined) throw new AppError("protocol", "this agent has arrived already");
            this.#record = this.#refusing(() => this.#arrive(facts, rpc));
            return {};
          },
          introduced: ({ sessionId }) => {
            const record = this.#record;
            if (record === undefined) throw new AppError("denied", "this agent has not arrived");
            this.#refusing(() => this.#door.registry.introduceAgent(record, [sessionId]));
            return {};
          },
          "intercept.revoke": async ({ id, by }, signal) => {
            if (this.#record === undefined) throw new AppError("denied", "this agent has not arrived");
            await this.#door.registry.revoke(this.#record, id, printable(by), signal);
            return {};
          },
        },
      },
      receives: agentNotifications,
      log: this.#door.log,
    });
    this.#rpc = rpc;
    rpc.onNotification("callers.kept", ({ ports }) => this.#record?.describeCallers(ports));
    rpc.onNotification("connections.older", ({ ports }) => {
      if (this.#record !== undefined) this.#door.registry.describeOlder(this.#record, ports);
    });
    rpc.onNotification("connections.unread", ({ ports }) => {
      if (this.#record !== undefined) this.#door.registry.describeUnread(this.#record, ports);
    });
    rpc.onNotification("copies.counted", ({ interceptId, ...counts }) => {
      if (this.#record !== undefined) this.#door.registry.countCopies(this.#record, interceptId, counts);
    });
    rpc.onNotification("laptop.refused", ({ interceptId, count }) => {
      if (this.#record !== undefined && count > 0) this.#door.registry.countRefused(this.#record, interceptId, count);
    });
    void rpc.closed.then((reason) => this.#end(reason));
  }

  #arrive(
    { config, introducedBy, podIps, filters = false, tls = false, probes = false, suspends = false }: Arrival,
    rpc: AgentRpc,
  ): AgentRecord {
    const { registry } = this.#door;
    const { workload } = config;
    const { sessions, vouched } = registry.admit({ fingerprint: this.#fingerprint, workload, introducedBy });
    const { podName } = vouched;
    return registry.connectAgent(
      this.#link({ workload, podIps, podName, filters, tls, probes, suspends }, rpc),
      sessions,
    );
  }

  /** Who is refused here was let in by its key; that deserves a line. */
  #refusing<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.#door.refusals.warn("agent not admitted", { reason: toAppError(error).message });
      throw error;
    }
  }

  #link(
    of: Pick<AgentLink, "workload" | "podIps" | "podName" | "filters" | "tls" | "probes" | "suspends">,
    rpc: AgentRpc,
  ): AgentLink {
    const { clock } = this.#door;
    return {
      ...of,
      fingerprint: this.#fingerprint,
      wiretaps: this.#session.peer.features.includes("wiretap" satisfies Feature),
      setIntercepts: async (intercepts, suspended) => {
        using limit = deadline(clock, setMs, `the agent of pod ${of.podName}`);
        await rpc.call("intercepts.set", { intercepts: [...intercepts], suspended: [...suspended] }, limit.signal);
      },
      close: () => void this.#end(undefined),
      destroy: (error) => this.#session.destroy(error),
    };
  }

  async #end(reason: AppError | undefined): Promise<void> {
    if (reason !== undefined) this.#session.destroy(reason);
    using limit = deadline(this.#door.clock, closeMs, "the end of the agent's link");
    await this.close(limit.signal);
  }
}
