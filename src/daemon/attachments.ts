// While an intercept lasts whose agents are ephemeral, each pod of the workload gets one: pods that come later, and pods
// whose agent has ended. Attaching begins as soon as a pod is seen, so that its agent starts beside its application.
// Invariant: one attempt a pod at a time; at most `maxAgents` new agents a pod, since their entries can never be removed.
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { isAppError, toAppError, type AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";

export interface AttachablePod {
  readonly name: string;
  readonly uid: string;
  /** Lives, and has no agent that runs or is about to. */
  readonly wantsAgent?: boolean | undefined;
}

export interface AttachmentOptions {
  readonly attach: (podName: string, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onChange: () => void;
}

interface Entry {
  pod: AttachablePod;
  busy: boolean;
  made: number;
  retryMs: number;
  failure: AppError | undefined;
}

/** chosen: an agent that ended so often in one pod has a reason that another one does not mend. */
const maxAgents = 3;
const maxParallel = 8;
const attemptMs = 10_000;
/** chosen: the watch shows the new agent long before. */
const seenMs = 2000;
const firstRetryMs = 200;
const lastRetryMs = 5000;

export class Attachments implements AsyncDisposable {
  readonly #options: AttachmentOptions;
  readonly #scope: Scope;
  readonly #pods = new Map<string, Entry>();
  #running = 0;

  constructor(options: AttachmentOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  /** Replaces the set of the workload's live pods. */
  setPods(pods: readonly AttachablePod[]): void {
    const uids = new Set(pods.map((pod) => pod.uid));
    for (const uid of this.#pods.keys()) if (!uids.has(uid)) this.#pods.delete(uid);
    for (const pod of pods) {
      const entry = this.#pods.get(pod.uid);
      if (entry !== undefined) entry.pod = pod;
      else this.#pods.set(pod.uid, { pod, busy: false, made: 0, retryMs: firstRetryMs, failure: undefined });
    }
    this.#pump();
  }

  /** Why a pod is without an agent. */
  get failure(): AppError | undefined {
    for (const { pod, failure } of this.#pods.values())
      if (pod.wantsAgent === true && failure !== undefined) return failure;
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  #pump(): void {
    for (const entry of this.#pods.values()) {
      if (this.#running >= maxParallel || this.#scope.disposed) return;
      if (entry.busy || entry.pod.wantsAgent !== true || entry.made >= maxAgents) continue;
      entry.busy = true;
      this.#running += 1;
      this.#scope.background("attach", this.#attachOnce(entry));
    }
  }

  async #attachOnce(entry: Entry): Promise<void> {
    const { attach, clock, log, onChange } = this.#options;
    const { signal } = this.#scope;
    const podName = entry.pod.name;
    let waitMs = seenMs;
    try {
      using limit = deadline(clock, attemptMs, `attaching to pod ${podName}`, signal);
      await attach(podName, limit.signal);
      entry.made += 1;
      entry.failure = undefined;
      log.info("agent attached", { podName });
    } catch (error) {
      if (!signal.aborted && !isAppError(error, "not_found")) {
        entry.failure = toAppError(error);
        log.warn("agent not attached", { podName, error: entry.failure.message, retryMs: entry.retryMs });
      }
      waitMs = entry.retryMs;
      entry.retryMs = Math.min(entry.retryMs * 2, lastRetryMs);
    }
    this.#running -= 1; // a waiting pod must not hold up the others
    if (signal.aborted) return;
    onChange();
    this.#pump();
    await clock.sleep(waitMs, signal).catch(() => undefined); // ended: the pump does nothing then
    entry.busy = false;
    this.#pump();
  }
}
