// Canaries to all agents of an intercept and to its services, at one time. Ports that speak HTTP get a request; any
// other port a connection that says nothing, once, since nobody can tell those from callers where they go astray.
// Invariant: nothing is sent to a service as long as a pod without an agent of ours may answer.
import type { Clock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import { inParallel } from "#base/in-parallel.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { InterceptPort } from "#wire/manager-api.ts";
import { formatEndpoint, type Endpoint } from "#wire/open.ts";
import { sendHttpCanary, sendSilentCanary, type CanaryResult } from "./canary.ts";
import type { IntroducedAgent } from "./introductions.ts";
import type { ServiceAddress, WorkloadAccess } from "./workload-access.ts";

export interface RoundOptions {
  readonly namespace: string;
  readonly ports: readonly InterceptPort[];
  readonly services: readonly ServiceAddress[];
  /** Makes the agent take silent callers from the manager for canaries; the connections of each port so far. */
  readonly expect: (podName: string, signal: AbortSignal) => Promise<readonly PortCount[]>;
  readonly access: Pick<WorkloadAccess, "findServicePods" | "explainByPass">;
  readonly secret: string;
  readonly clock: Clock;
}

export interface PortCount {
  readonly containerPort: number;
  readonly protocol: string;
  readonly connections: number;
}

type Result = CanaryResult & { readonly atMs: number };
/** By where it was sent to, for people. */
export type RoundResults = ReadonlyMap<string, Result>;

/** chosen: rules and endpoints follow a change within this; a canary that went astray is sent again meanwhile. */
const followMs = 1500;
const againMs = 150;
/** chosen: pods tried at once. */
const maxParallel = 8;

export class CanaryRound {
  readonly #options: RoundOptions;
  readonly #session: TunnelSession;
  readonly #agents: readonly IntroducedAgent[];
  readonly #old: RoundResults;
  readonly #results = new Map<string, Result>();

  constructor(
    options: RoundOptions,
    {
      session,
      agents,
      old,
    }: {
      readonly session: TunnelSession;
      readonly agents: readonly IntroducedAgent[];
      /** Of the same agents; what is not to be repeated stays. */
      readonly old: RoundResults;
    },
  ) {
    this.#options = options;
    this.#session = session;
    this.#agents = agents;
    this.#old = old;
  }

  async run(signal: AbortSignal): Promise<RoundResults> {
    const agents = inParallel(this.#agents, maxParallel, (agent) => this.#tryAgent(agent, signal));
    const services = this.#options.services.map((service) => this.#tryService(service, agents, signal));
    await Promise.all([agents, ...services]);
    return this.#results;
  }

  #note(where: string, result: CanaryResult): void {
    this.#results.set(where, { ...result, atMs: this.#options.clock.now() });
  }

  async #tryAgent(agent: IntroducedAgent, signal: AbortSignal): Promise<void> {
    const wanted = new Set(this.#options.ports.map(keyOf));
    const ports = agent.ports.filter((at) => at.protocol === "tcp" && wanted.has(keyOf(at)));
    if (!agent.canaries) {
      const reason = `the traffic-agent in pod ${agent.podName} is of an older version, which cannot tell`;
      for (const at of ports) this.#note(placeOf(agent, at), { kind: "unknown", reason });
      return;
    }
    const silent = ports.filter((at) => !speaksHttp(at));
    const http = ports.filter(speaksHttp);
    await Promise.all([this.#trySilent(agent, silent, signal), ...http.map((at) => this.#tryHttp(agent, at, signal))]);
  }

  async #tryHttp(agent: IntroducedAgent, at: AgentPort, signal: AbortSignal): Promise<void> {
    const target = targetOf(agent, at);
    const isOurs = (podUid: string): boolean => podUid === agent.podUid;
    const result = await this.#insist(target, isOurs, signal);
    this.#note(placeOf(agent, at), await this.#explain(agent, at, result, signal));
  }

  /** Sends an HTTP canary again while it goes astray, for a while. */
  async #insist(target: Endpoint, isOurs: (podUid: string) => boolean, signal: AbortSignal): Promise<CanaryResult> {
    const { clock, secret } = this.#options;
    const untilMs = clock.now() + followMs;
    for (;;) {
      const result = await sendHttpCanary({ session: this.#session, target, secret, clock, signal });
      if (result.kind === "agent" && isOurs(result.podUid)) return result;
      if (result.kind === "unknown") return result;
      if (clock.now() >= untilMs) {
        if (result.kind === "elsewhere") return result;
        return { kind: "elsewhere", reason: `the agent of another pod answered at ${formatEndpoint(target)}` };
      }
      await clock.sleep(againMs, signal);
    }
  }

  async #trySilent(agent: IntroducedAgent, ports: readonly AgentPort[], signal: AbortSignal): Promise<void> {
    const fresh = ports.filter((at) => {
      const old = this.#old.get(placeOf(agent, at));
      if (old === undefined || old.kind === "unknown") return true;
      this.#results.set(placeOf(agent, at), old);
      return false;
    });
    if (fresh.length === 0) return;
    try {
      const before = await this.#options.expect(agent.podName, signal);
      const sent = await Promise.all(fresh.map((at) => this.#sendSilent(agent, at, signal)));
      const after = await this.#options.expect(agent.podName, signal);
      for (const [index, at] of fresh.entries()) {
        const result = sent[index] ?? "connected";
        const came = countOf(after, at) > countOf(before, at);
        const judged = result === "connected" ? judge(agent, at, came) : result;
        this.#note(placeOf(agent, at), await this.#explain(agent, at, judged, signal));
      }
    } catch (error) {
      signal.throwIfAborted();
      const reason = toAppError(error).message;
      for (const at of fresh) this.#note(placeOf(agent, at), { kind: "unknown", reason });
    }
  }

  #sendSilent(agent: IntroducedAgent, at: AgentPort, signal: AbortSignal): ReturnType<typeof sendSilentCanary> {
    const { clock } = this.#options;
    return sendSilentCanary({ session: this.#session, target: targetOf(agent, at), clock, signal });
  }

  /** Adds who it may be that takes the port. */
  async #explain(
    agent: IntroducedAgent,
    at: AgentPort,
    result: CanaryResult,
    signal: AbortSignal,
  ): Promise<CanaryResult> {
    if (result.kind !== "elsewhere") return result;
    const { access, namespace } = this.#options;
    const who = await access.explainByPass(namespace, agent.podName, at, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      return `who takes it cannot be seen: ${toAppError(error).message}`;
    });
    return { kind: "elsewhere", reason: `${result.reason}, not the agent in pod ${agent.podName}; ${who}` };
  }

  /**
   * A canary sent to a service must not find a pod without an agent of ours. Where there is one, another round tries it:
   * pods that are on their way out are gone then. Of pods that are by-passed there is nothing more to say.
   */
  async #tryService(service: ServiceAddress, agents: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const { namespace, access } = this.#options;
    const uids = new Set(this.#agents.map(({ podUid }) => podUid));
    if (!this.#agents.every((agent) => agent.canaries && hasHttp(agent, service.containerPort))) return;
    const where = `${service.name} (ClusterIP)`;
    try {
      const [behind] = await Promise.all([access.findServicePods(namespace, service.name, signal), agents]);
      const isReached = [...this.#results.values()].every(({ kind }) => kind === "agent");
      if (!isReached || behind.length === 0 || !behind.every((uid) => uids.has(uid))) return;
      const result = await this.#insist(service, (podUid) => uids.has(podUid), signal);
      const callers = `where callers of service ${service.name} connect`;
      this.#note(where, result.kind === "agent" ? result : { ...result, reason: `${result.reason}, ${callers}` });
    } catch (error) {
      signal.throwIfAborted();
      this.#note(where, { kind: "unknown", reason: toAppError(error).message });
    }
  }
}

const keyOf = ({ containerPort, protocol }: Pick<AgentPort, "containerPort" | "protocol">): string =>
  `${containerPort}/${protocol}`;
const speaksHttp = (at: AgentPort): boolean => at.http === true;

function hasHttp({ ports }: IntroducedAgent, containerPort: number): boolean {
  return ports.some((at) => at.containerPort === containerPort && at.protocol === "tcp" && speaksHttp(at));
}

function targetOf({ podIps }: IntroducedAgent, at: AgentPort): Endpoint {
  return { address: podIps[0] ?? "", port: at.takeover === "name" ? at.agentPort : at.containerPort };
}
const placeOf = (agent: IntroducedAgent, at: AgentPort): string => formatEndpoint(targetOf(agent, at));

function countOf(counts: readonly PortCount[], { containerPort, protocol }: AgentPort): number {
  return counts.find((one) => one.containerPort === containerPort && one.protocol === protocol)?.connections ?? 0;
}

function judge(agent: IntroducedAgent, at: AgentPort, came: boolean): CanaryResult {
  if (came) return { kind: "agent", podUid: agent.podUid };
  return { kind: "elsewhere", reason: `somebody else took a connection to ${placeOf(agent, at)}` };
}
