// The pods of an ingested workload: which one is read now, and agents to read with where the container cannot be read
// by itself.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { Changes } from "#daemon/intercepts/active-wait.ts";
import { Attachments } from "#daemon/intercepts/attachments.ts";
import { keepWatchingPods } from "#daemon/intercepts/pod-watch.ts";
import type { WorkloadAccess, WorkloadPod } from "#daemon/intercepts/workload-access.ts";
import { askAgents } from "#daemon/workload-agents.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";

export interface IngestedPodsOptions {
  readonly access: WorkloadAccess;
  readonly workload: WorkloadRef;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: for the list of the pods. */
const listMs = 10_000;
/** chosen: a pod that starts is worth a moment; one that never comes up is read as it is. */
const readyMs = 5000;
/** chosen: half of the ten minutes that an ephemeral agent stays unasked. */
const askMs = 5 * 60_000;
/** chosen: the image is on most nodes. */
const agentMs = 60_000;

export class IngestedPods implements AsyncDisposable {
  readonly #options: IngestedPodsOptions;
  readonly #scope: Scope;
  readonly #changes = new Changes();
  #pods: readonly WorkloadPod[] | undefined;
  #failure: unknown;
  #attachments: Attachments<WorkloadPod> | undefined;

  constructor(options: IngestedPodsOptions) {
    this.#options = options;
    const { access, workload, clock, log } = options;
    this.#scope = new Scope(log);
    const onPods = (pods: readonly WorkloadPod[]): void => this.#onPods(pods);
    const onFailure = (error: unknown): void => {
      this.#failure = error;
      this.#changes.wake();
    };
    const watch = { access, workload, onPods, onFailure, clock, log };
    this.#scope.background("pod watch", keepWatchingPods(watch, this.#scope.signal));
  }

  /** One that answers, before one that only lives; one with an agent to read with before others. */
  get somePod(): WorkloadPod | undefined {
    const live = (this.#pods ?? []).filter((pod) => pod.ended !== true);
    const ready = live.filter((pod) => pod.ready);
    return ready.find((pod) => pod.agentRunning) ?? ready[0] ?? live[0];
  }

  /** Waits a moment for a pod that is ready; throws when there is none that lives. */
  async first(signal: AbortSignal): Promise<WorkloadPod> {
    const { kind, name } = this.#options.workload;
    await this.#until(() => this.#pods !== undefined, `listing the pods of ${kind} ${name}`, listMs, signal);
    const isReady = (): boolean => this.somePod?.ready === true;
    await this.#until(isReady, "a pod that is ready", readyMs, signal).catch((error: unknown) => {
      if (signal.aborted || !isAppError(error, "timeout")) throw error;
    });
    const pod = this.somePod;
    if (pod !== undefined) return pod;
    throw new AppError("not_interceptable", `${kind.toLowerCase()} ${name} has no pod that runs`, {
      hint: kind === "CronJob" ? "ingest it while one of its jobs runs" : "start it, and try again",
    });
  }

  /** From now on pods without an agent get one. */
  attachAgents(): void {
    const { access, workload, clock, log } = this.#options;
    const attach = (pod: WorkloadPod, signal: AbortSignal): Promise<void> => access.attach(workload, pod, [], signal);
    if (this.#attachments !== undefined) return;
    this.#attachments = this.#scope.use(new Attachments({ attach, clock, log, onChange: () => undefined }));
    this.#attachments.setPods(this.#pods ?? []);
    this.#scope.background("agents to read with", this.#keepAgents());
  }

  /** Until the pod that is read has an agent that runs. */
  async untilAgent(signal: AbortSignal): Promise<void> {
    await this.#until(() => this.somePod?.agentRunning === true, "starting the traffic-agent", agentMs, signal);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope[Symbol.asyncDispose]();
  }

  /** An agent that nobody asks anything ends after a while, and another one would have to come. */
  async #keepAgents(): Promise<void> {
    const { access, workload, clock } = this.#options;
    const { signal } = this.#scope;
    while (!signal.aborted) {
      await clock.sleep(askMs, signal).catch(() => undefined); // ended: the loop's condition ends it
      if (signal.aborted) return;
      const pods = (this.#pods ?? []).filter((pod) => pod.agentRunning);
      await askAgents({ access, workload, clock }, pods, (rpc, asking) => rpc.call("identify", {}, asking), signal);
    }
  }

  #onPods(pods: readonly WorkloadPod[]): void {
    this.#pods = pods;
    this.#failure = undefined;
    this.#attachments?.setPods(pods);
    this.#changes.wake();
  }

  async #until(holds: () => boolean, what: string, limitMs: number, signal: AbortSignal): Promise<void> {
    using limit = deadline(this.#options.clock, limitMs, what, signal);
    while (!holds()) {
      if (isAppError(this.#failure, "forbidden") || isAppError(this.#failure, "workload_not_found"))
        throw this.#failure;
      await this.#changes.next(limit.signal);
    }
  }
}
