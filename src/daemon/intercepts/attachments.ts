// While an intercept lasts whose agents are ephemeral, each pod of the workload gets one: pods that come later, and pods
// whose agent has ended. Attaching begins as soon as a pod is seen, so that its agent starts beside its application.
// Invariant: at most `maxAgents` new agents a pod, since their entries can never be removed.
import type { Clock } from "#base/clock.ts";
import { isAppError, type AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { PodAttempts } from "./pod-attempts.ts";

export interface AttachablePod {
  readonly name: string;
  readonly uid: string;
  /** Lives, and has no agent that runs or is about to. */
  readonly wantsAgent?: boolean | undefined;
}

export interface AttachmentOptions<Pod> {
  readonly attach: (pod: Pod, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly onChange: () => void;
}

/** chosen: an agent that ended so often in one pod has a reason that another one does not mend. */
const maxAgents = 3;
/** chosen: the watch shows the new agent long before. */
const seenMs = 2000;
const firstRetryMs = 200;

export class Attachments<Pod extends AttachablePod> implements AsyncDisposable {
  readonly #attempts: PodAttempts<Pod, { made: number }>;

  constructor({ attach, clock, log, onChange }: AttachmentOptions<Pod>) {
    this.#attempts = new PodAttempts({
      what: "attaching to pod",
      initial: () => ({ made: 0 }),
      isWanted: ({ pod, state }) => pod.wantsAgent === true && state.made < maxAgents,
      attempt: async ({ pod, state }, signal) => {
        try {
          await attach(pod, signal);
        } catch (error) {
          if (isAppError(error, "not_found")) return; // the watch will say so
          throw error;
        }
        state.made += 1;
        log.info("agent attached", { podName: pod.name });
      },
      firstRetryMs,
      restMs: seenMs,
      clock,
      log,
      onChange,
    });
  }

  /** Replaces the set of the workload's live pods. */
  setPods(pods: readonly Pod[]): void {
    this.#attempts.setPods(pods);
  }

  /** Why a pod is without an agent. */
  get failure(): AppError | undefined {
    return this.#attempts.entries.find(({ pod, failure }) => pod.wantsAgent === true && failure !== undefined)?.failure;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#attempts[Symbol.asyncDispose]();
  }
}
