// Introductions (DESIGN 4): for every pod of an intercepted workload, read its agent's key, let the manager trust it,
// and give the agent the manager's address and key and our session, which it names to the manager: only who reached the
// agent can have told it. Pods come and go and managers restart, so this follows both.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { openConversation } from "#daemon/link/laptop-session.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import { PodAttempts, type PodEntry } from "./pod-attempts.ts";

/** What the follower needs to know of a pod. */
export interface AgentPod {
  readonly name: string;
  readonly uid: string;
  /** Its agent's container runs. */
  readonly agentRunning: boolean;
  /** It is not said to run yet, and may answer any moment. */
  readonly agentComing?: boolean | undefined;
  /** Which container that is: another one has another key. */
  readonly agent?: string | undefined;
}

export interface IntroductionOptions {
  readonly workload: WorkloadRef;
  readonly openIntroduction: (podName: string, signal: AbortSignal) => Promise<Duplex>;
  readonly manager: () => ManagerConnection | undefined;
  /** Where the manager's pod listens for agents. */
  readonly managerPort: number;
  /** Tells our canaries from callers. */
  readonly canarySecret: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called after each change of who is introduced and why not. */
  readonly onChange: () => void;
}

/** What it says of itself. */
export interface IntroducedAgent {
  readonly fingerprint: string;
  readonly podName: string;
  readonly podUid: string;
  readonly podIps: readonly string[];
  readonly ports: readonly AgentPort[];
  /** It tells our canaries from callers. */
  readonly canaries: boolean;
}

interface State {
  agent?: IntroducedAgent;
  introduced: boolean;
  /** First attempt. */
  sinceMs?: number;
}

/** chosen: a container is said to run a moment before its agent listens. */
const firstRetryMs = 40;
/** chosen: a container is often up to a second older than the news of it; one whose image is pulled takes long. */
const knockMs = 60;
const promptMs = 3000;
const seldomMs = 1000;

export class Introductions implements AsyncDisposable {
  readonly #options: IntroductionOptions;
  readonly #attempts: PodAttempts<AgentPod, State>;

  constructor(options: IntroductionOptions) {
    this.#options = options;
    const { manager, clock, log, onChange } = options;
    this.#attempts = new PodAttempts<AgentPod, State>({
      what: "the introduction to pod",
      initial: () => ({ introduced: false }),
      isWanted: ({ pod, state }) => manager() !== undefined && !state.introduced && mayAnswer(pod),
      attempt: (entry, signal) => this.#attempt(entry, signal),
      firstRetryMs,
      restMs: 0,
      clock,
      log,
      onChange,
    });
  }

  /** Replaces the set of the workload's live pods. */
  setPods(pods: readonly AgentPod[]): void {
    for (const { uid, agent } of pods) {
      const entry = this.#attempts.find(uid);
      if (entry !== undefined && entry.pod.agent !== agent) forget(entry);
    }
    this.#attempts.setPods(pods);
    this.#options.onChange();
  }

  /** The manager is new, or lost this agent: introduce again. */
  again(podUid?: string): void {
    for (const entry of this.#attempts.entries) {
      if (podUid !== undefined && entry.pod.uid !== podUid) continue;
      forget(entry);
      this.#attempts.hasten(entry);
    }
    this.#attempts.pump();
  }

  /** The link is back: whoever was introduced still is. */
  goOn(): void {
    for (const entry of this.#attempts.entries) if (!entry.state.introduced) this.#attempts.hasten(entry);
    this.#attempts.pump();
  }

  /** Those that are introduced. */
  get agents(): readonly IntroducedAgent[] {
    return this.#attempts.entries.flatMap(({ state }) => (state.introduced && state.agent ? [state.agent] : []));
  }
  /** The first failure among pods that are not introduced. */
  get failure(): AppError | undefined {
    return this.#attempts.entries.find(({ failure }) => failure !== undefined)?.failure;
  }
  isIntroduced(podUid: string): boolean {
    return this.#attempts.find(podUid)?.state.introduced === true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#attempts[Symbol.asyncDispose]();
  }

  async #attempt(entry: PodEntry<AgentPod, State>, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const { state } = entry;
    const manager = this.#options.manager();
    if (manager === undefined) return;
    state.sinceMs ??= clock.now();
    while (!state.introduced) {
      const { pod } = entry;
      try {
        state.agent = await this.#introduce(pod, manager, signal);
        if (this.#options.manager() !== manager) return;
        state.introduced = true;
        log.info("agent introduced", { podName: pod.name });
      } catch (error) {
        // Said to run meanwhile: what the agent answered is the reason, not a door that was closed yet.
        if (entry.pod.agentRunning || signal.aborted || !mayAnswer(entry.pod)) throw error;
        await clock.sleep(clock.now() - state.sinceMs < promptMs ? knockMs : seldomMs, signal);
      }
    }
  }

  async #introduce(pod: AgentPod, manager: ManagerConnection, signal: AbortSignal): Promise<IntroducedAgent> {
    const { clock, log, workload, managerPort: port, canarySecret } = this.#options;
    const transport = await this.#options.openIntroduction(pod.name, signal);
    using agent = await openConversation(transport, { api: "introduction", clock, log }, signal);
    const key = await agent.rpc.call("identify", {}, signal);
    const trusted = { fingerprint: key.fingerprint, podUid: pod.uid, podName: pod.name, workload };
    await manager.rpc.call("agents.trust", { agents: [trusted] }, signal);
    const { sessionId } = manager.arrival;
    const { podIps, fingerprint, namespace } = manager.arrival.manager;
    const introduction = { manager: { podIps, port, fingerprint, namespace }, sessionId, canarySecret };
    const { canaries = false } = await agent.rpc.call("introduce", introduction, signal);
    const { podIps: ownIps, config } = key;
    return {
      fingerprint: key.fingerprint,
      podName: pod.name,
      podUid: pod.uid,
      podIps: ownIps,
      ports: config.ports,
      canaries,
    };
  }
}

function forget(entry: PodEntry<AgentPod, State>): void {
  entry.state.introduced = false;
  entry.failure = undefined;
  entry.retryMs = firstRetryMs;
}

/** Its agent runs, or is about to and may be there before the cluster tells. */
export function mayAnswer({ agentRunning, agentComing = false }: AgentPod): boolean {
  return agentRunning || agentComing;
}
