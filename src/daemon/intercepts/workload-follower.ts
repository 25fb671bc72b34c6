// Follows the pods of one intercepted workload and keeps their agents introduced, for as long as one of our intercepts
// on it lives.
import type { Clock } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { AppPort } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { Attachments } from "./attachments.ts";
import type { PortCount } from "./canary-round.ts";
import { Introductions, type IntroducedAgent } from "./introductions.ts";
import { openConversation } from "#daemon/link/laptop-session.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import { keepWatchingPods } from "./pod-watch.ts";
import type { WorkloadAccess, WorkloadPod } from "./workload-access.ts";

export interface FollowerOptions {
  readonly workload: WorkloadRef;
  readonly access: WorkloadAccess;
  readonly manager: () => ManagerConnection | undefined;
  readonly managerPort: number;
  readonly canarySecret: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onChange: () => void;
}

export class WorkloadFollower implements AsyncDisposable {
  readonly #options: FollowerOptions;
  readonly #scope: Scope;
  readonly #introductions: Introductions;
  #attachments: Attachments<WorkloadPod> | undefined;
  #pods: readonly WorkloadPod[] | undefined;

  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
    this.#introductions = this.#scope.use(
      new Introductions({
        workload: options.workload,
        openIntroduction: (podName, signal) =>
          options.access.openIntroduction(options.workload.namespace, podName, signal),
        manager: options.manager,
        managerPort: options.managerPort,
        canarySecret: options.canarySecret,
        clock: options.clock,
        log: options.log,
        onChange: options.onChange,
      }),
    );
    const { access, workload, clock, log } = options;
    const onPods = (pods: readonly WorkloadPod[]): void => this.#onPods(pods);
    this.#scope.background("pod watch", keepWatchingPods({ access, workload, onPods, clock, log }, this.#scope.signal));
  }

  /** From now on pods without an agent get an ephemeral one that takes these ports. */
  attachTo(needed: readonly AppPort[]): void {
    if (this.#attachments !== undefined) return; // an agent takes all ports of its pod's services
    const { access, workload, clock, log, onChange } = this.#options;
    this.#attachments = this.#scope.use(
      new Attachments({
        attach: (pod, signal) => access.attach(workload, pod, needed, signal),
        clock,
        log,
        onChange,
      }),
    );
    this.#scope.background("service watch", this.#followServices());
    if (this.#pods !== undefined) this.#attachments.setPods(this.#pods);
  }

  get agents(): readonly IntroducedAgent[] {
    return this.#introductions.agents;
  }
  /** Makes a pod's agent take silent callers from the manager for canaries; the connections of each port so far. */
  async expectCanaries(podName: string, signal: AbortSignal): Promise<readonly PortCount[]> {
    const { access, workload, clock, log } = this.#options;
    const transport = await access.openIntroduction(workload.namespace, podName, signal);
    using agent = await openConversation(transport, { api: "introduction", clock, log }, signal);
    return (await agent.rpc.call("canary.expect", {}, signal)).ports;
  }
  /** Every ready pod is introduced, and there is at least one. */
  get isIntroduced(): boolean {
    const ready = this.#expected;
    return ready.length > 0 && ready.every(({ uid }) => this.#introductions.isIntroduced(uid));
  }
  /** … and is among those that serve. */
  isComplete(serving: readonly { readonly uid: string }[]): boolean {
    const uids = new Set(serving.map((pod) => pod.uid));
    return this.isIntroduced && this.#expected.every((pod) => uids.has(pod.uid));
  }
  /** A pod whose agent runs, for reading the environment. */
  get somePod(): WorkloadPod | undefined {
    const running = this.#pods?.filter((pod) => pod.agentRunning || this.#introductions.isIntroduced(pod.uid));
    return running?.find((pod) => pod.ready) ?? running?.[0];
  }
  /** Pods that live first: of one that is ending the manager may still hear, and nobody should call it. */
  liveFirst<T extends { readonly uid: string }>(serving: readonly T[]): T[] {
    const live = new Set(this.#pods?.map((pod) => pod.uid));
    return serving.toSorted((a, b) => Number(live.has(b.uid)) - Number(live.has(a.uid)));
  }
  /** Why nobody can serve it now: it has no pod that runs. */
  get absence(): string | undefined {
    if (this.#pods === undefined || this.#pods.some((pod) => pod.ended !== true)) return undefined;
    const { kind, name } = this.#options.workload;
    if (kind === "CronJob") return `no job of cronjob ${name} runs now: the pods of its next one will be taken`;
    if (kind === "Job" || kind === "Pod")
      return `${kind.toLowerCase()} ${name} has ended: \`telepresence leave\` ends the intercept`;
    return `${kind.toLowerCase()} ${name} has no pod that runs`;
  }
  get failure(): AppError | undefined {
    return this.#attachments?.failure ?? this.#introductions.failure;
  }
  /** One sentence on what is still missing. */
  describe(): string {
    if (this.#pods === undefined) return "the pods could not be listed yet";
    const expected = this.#expected;
    if (expected.length === 0) return `none of its ${this.#pods.length} pods is ready and has an agent`;
    const introduced = expected.filter((pod) => this.#introductions.isIntroduced(pod.uid)).length;
    const why = this.failure === undefined ? "" : `: ${this.failure.message}`;
    return `${introduced} of ${expected.length} ready pods are introduced${why}`;
  }
  again(podUid?: string): void {
    this.#introductions.again(podUid);
  }
  goOn(): void {
    this.#introductions.goOn();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope[Symbol.asyncDispose]();
  }

  /** Ready pods that have an agent or get one: where it comes with the template, some may keep one without. */
  get #expected(): readonly WorkloadPod[] {
    const attaches = this.#attachments !== undefined;
    return (this.#pods ?? []).filter((pod) => pod.ready && (attaches || pod.agentRunning || pod.agent !== undefined));
  }

  /** New pods are on their way to their nodes when they are seen: whoever has to ask first comes too late. */
  async #followServices(): Promise<void> {
    const { access, workload, log } = this.#options;
    try {
      await access.followServices(workload.namespace, this.#scope.signal);
    } catch (error) {
      if (!this.#scope.signal.aborted) log.info("services not watched", { reason: String(error) });
    }
  }

  #onPods(pods: readonly WorkloadPod[]): void {
    this.#pods = pods;
    this.#attachments?.setPods(pods);
    this.#introductions.setPods(pods);
  }
}
