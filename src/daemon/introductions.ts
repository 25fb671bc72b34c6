// Introductions (DESIGN 4): for every pod of an intercepted workload, read its agent's key, let the manager trust it,
// and give the agent the manager's address and key and our session, which it names to the manager: only who reached the
// agent can have told it. Pods come and go and managers restart, so this follows both.
// Invariant: one attempt a pod at a time; at most `maxParallel` in all.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { toAppError, type AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { openConversation } from "./laptop-session.ts";
import type { ManagerConnection } from "./manager-link.ts";

/** What the follower needs to know of a pod. */
export interface AgentPod {
  readonly name: string;
  readonly uid: string;
  /** Its agent's container runs. */
  readonly agentRunning: boolean;
  /** Which container that is: another one has another key. */
  readonly agent?: string | undefined;
}

export interface IntroductionOptions {
  readonly workload: WorkloadRef;
  readonly openIntroduction: (podName: string, signal: AbortSignal) => Promise<Duplex>;
  readonly manager: () => ManagerConnection | undefined;
  /** Where the manager's pod listens for agents. */
  readonly managerPort: number;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called after each change of who is introduced and why not. */
  readonly onChange: () => void;
}

type PodState =
  | { readonly kind: "pending" }
  | { readonly kind: "introduced"; readonly manager: string }
  | { readonly kind: "failed"; readonly error: AppError };

/** chosen: enough for a large workload without flooding the API server. */
const maxParallel = 8;
const attemptTimeoutMs = 10_000;
/** chosen: a container is said to run a moment before its agent listens. */
const firstRetryMs = 40;
const lastRetryMs = 5000;

export class Introductions implements AsyncDisposable {
  readonly #options: IntroductionOptions;
  readonly #scope: Scope;
  readonly #pods = new Map<string, { pod: AgentPod; state: PodState; busy: boolean; retryMs: number }>();
  #running = 0;

  constructor(options: IntroductionOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  /** Replaces the set of the workload's live pods. */
  setPods(pods: readonly AgentPod[]): void {
    const uids = new Set(pods.map((pod) => pod.uid));
    for (const uid of this.#pods.keys()) if (!uids.has(uid)) this.#pods.delete(uid);
    for (const pod of pods) {
      const entry = this.#pods.get(pod.uid);
      if (entry === undefined) {
        this.#pods.set(pod.uid, { pod, state: { kind: "pending" }, busy: false, retryMs: firstRetryMs });
      } else {
        if (entry.pod.agent !== pod.agent) entry.state = { kind: "pending" };
        entry.pod = pod;
      }
    }
    this.#pump();
    this.#options.onChange();
  }

  /** The manager is new, or lost this agent: introduce again. */
  again(podUid?: string): void {
    for (const [uid, entry] of this.#pods) {
      if (podUid === undefined || uid === podUid) {
        entry.state = { kind: "pending" };
        entry.retryMs = firstRetryMs;
      }
    }
    this.#pump();
  }

  /** Pods whose agents are introduced to the manager that is connected now. */
  get introduced(): readonly AgentPod[] {
    return [...this.#pods.values()].filter((entry) => entry.state.kind === "introduced").map((entry) => entry.pod);
  }
  /** The first failure among pods that are not introduced. */
  get failure(): AppError | undefined {
    for (const entry of this.#pods.values()) if (entry.state.kind === "failed") return entry.state.error;
    return undefined;
  }
  isIntroduced(podUid: string): boolean {
    return this.#pods.get(podUid)?.state.kind === "introduced";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  #pump(): void {
    if (this.#options.manager() === undefined) return;
    for (const entry of this.#pods.values()) {
      if (this.#running >= maxParallel || this.#scope.disposed) return;
      if (entry.busy || entry.state.kind === "introduced" || !entry.pod.agentRunning) continue;
      entry.busy = true;
      this.#running += 1;
      this.#scope.background("introduction", this.#introduceOnce(entry));
    }
  }

  async #introduceOnce(entry: { pod: AgentPod; state: PodState; busy: boolean; retryMs: number }): Promise<void> {
    const { clock, log } = this.#options;
    const manager = this.#options.manager();
    try {
      if (manager === undefined) return;
      using limit = deadline(clock, attemptTimeoutMs, `the introduction to pod ${entry.pod.name}`, this.#scope.signal);
      await this.#introduce(entry.pod, manager, limit.signal);
      if (this.#options.manager() === manager) entry.state = { kind: "introduced", manager: manager.arrival.sessionId };
      entry.retryMs = firstRetryMs;
      log.info("agent introduced", { podName: entry.pod.name });
    } catch (error) {
      if (this.#scope.signal.aborted) return;
      entry.state = { kind: "failed", error: toAppError(error) };
      log.warn("introduction failed", { podName: entry.pod.name, error: String(error), retryMs: entry.retryMs });
      this.#running -= 1; // a waiting pod must not hold up the others
      await clock.sleep(entry.retryMs, this.#scope.signal).catch(() => undefined); // ended: handled by the caller
      this.#running += 1;
      entry.retryMs = Math.min(entry.retryMs * 1.5, lastRetryMs);
    } finally {
      this.#running -= 1;
      entry.busy = false;
      if (!this.#scope.signal.aborted) {
        this.#options.onChange();
        this.#pump();
      }
    }
  }

  async #introduce(pod: AgentPod, manager: ManagerConnection, signal: AbortSignal): Promise<void> {
    const { clock, log, workload, managerPort: port } = this.#options;
    const transport = await this.#options.openIntroduction(pod.name, signal);
    using agent = await openConversation(transport, { api: "introduction", clock, log }, signal);
    const key = await agent.rpc.call("identify", {}, signal);
    const trusted = { fingerprint: key.fingerprint, podUid: pod.uid, podName: pod.name, workload };
    await manager.rpc.call("agents.trust", { agents: [trusted] }, signal);
    const { sessionId } = manager.arrival;
    const { podIps, fingerprint, namespace } = manager.arrival.manager;
    await agent.rpc.call("introduce", { manager: { podIps, port, fingerprint, namespace }, sessionId }, signal);
  }
}
