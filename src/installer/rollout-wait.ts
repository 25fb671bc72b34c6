// Waiting for a rollout: every pod is of the new template and ready, or the cluster's own reason why not.
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { waitFor } from "#kube/live-set.ts";
import type { KubeEvent, Pod, Resource, Workload } from "#kube/objects.ts";
import { events, formatSelector, pods } from "#kube/objects.ts";
import type { PodProblem } from "#kube/workloads/pod-problems.ts";
import {
  describeWorkload,
  templateHolder,
  templatedResources,
  withTemplateOf,
  workloadResources,
} from "#kube/workloads/workloads.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import { Patience, WaitLimit } from "./patience.ts";
import { replacePodsByHand } from "./pod-replacement.ts";
import type { RolloutState } from "./rollout-state.ts";
import { judgeRollout } from "./rollout-state.ts";
import { SlowPods } from "./slow-pods.ts";

export interface RolloutWait {
  readonly ref: WorkloadRef;
  /** The workload as the patch left it. */
  readonly object: Workload;
  readonly isNew: (pod: Pod) => boolean;
  /** False when somebody undid the change meanwhile. */
  readonly stillWanted: (current: Workload) => boolean;
  readonly what: string;
  readonly onProgress: (text: string) => void;
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** Until every pod is replaced and ready; throws `rollout_failed` with the cluster's reason. */
export async function waitForRollout(kube: Kube, wait: RolloutWait): Promise<void> {
  const { ref, object, what } = wait;
  const namespace = ref.namespace;
  const labelSelector = formatSelector(object.spec.selector ?? {});
  using limit = new WaitLimit({ clock: kube.clock, ms: wait.timeoutMs, what }, wait.signal);
  await using slow = new SlowPods(kube, namespace);
  await using restarting = replacePodsByHand(kube, wait, limit.signal);
  const holder = templateHolder(ref, object);
  const watchedTemplate = {
    kind: templatedResources[holder.kind],
    query: { namespace, fieldSelector: `metadata.name=${holder.name}` },
  };
  const judge = new Judge(wait, { clock: kube.clock, limit, slow });
  try {
    await waitFor(kube, {
      watched: {
        workload: {
          kind: workloadResources[ref.kind] as Resource<Workload>,
          query: { namespace, fieldSelector: `metadata.name=${ref.name}` },
        },
        ...(holder.kind === ref.kind ? {} : { template: watchedTemplate }),
        pods: { kind: pods, query: { namespace, labelSelector } },
        events: {
          kind: events,
          query: { namespace, fieldSelector: `involvedObject.uid=${object.metadata.uid ?? ""}` },
          optional: true,
        },
      },
      evaluate: (sets) => {
        restarting.check();
        return judge.look(
          joinTemplate(sets.workload[0], holder.kind === ref.kind ? sets.workload[0] : sets.template?.[0]),
          sets.pods,
          sets.events,
        );
      },
      signal: limit.signal,
    });
  } catch (error) {
    if (!isAppError(error, "timeout") || wait.signal.aborted) throw error;
    const stuck = judge.describe();
    throw new AppError("rollout_failed", `${error.message}${stuck ?? ""}`, {
      cause: error,
      fields: { reason: "Timeout" },
      hint: `kubectl describe ${ref.kind.toLowerCase()} ${ref.name} -n ${namespace}`,
    });
  }
}

function joinTemplate(own: Workload | undefined, held: Workload | undefined): Workload | undefined {
  return own === undefined || held === undefined ? undefined : withTemplateOf(own, held);
}

interface JudgeParts {
  readonly clock: Clock;
  readonly limit: WaitLimit;
  readonly slow: SlowPods;
}

class Judge {
  readonly #wait: RolloutWait;
  readonly #parts: JudgeParts;
  readonly #patience = new Patience();
  #last: RolloutState | undefined;
  #said = "";

  constructor(wait: RolloutWait, parts: JudgeParts) {
    this.#wait = wait;
    this.#parts = parts;
  }

  /** True when it is done; throws when it never will be. */
  look(workload: Workload | undefined, live: readonly Pod[], seen: readonly KubeEvent[]): true | undefined {
    const { ref, isNew, object } = this.#wait;
    const wanted = this.#stillWanted(workload);
    const generation = object.metadata.generation ?? 0;
    const state = judgeRollout({ kind: ref.kind, workload: wanted, pods: live, events: seen, isNew, generation });
    if (state.readyPods > (this.#last?.readyPods ?? 0)) this.#patience.reset();
    this.#last = state;
    const delay =
      this.#bear(state.problem, live) ?? this.#parts.slow.describePull(state.done ? [] : live.filter(isNew));
    const text = `${describeState(this.#wait, wanted, state)}${delay === undefined ? "" : `, ${delay}`}`;
    if (text !== this.#said) this.#wait.onProgress(text);
    this.#said = text;
    return state.done ? true : undefined;
  }

  /** What was missing at last, for a time-out; undefined when nothing has been seen. */
  describe(): string | undefined {
    if (this.#last === undefined) return undefined;
    const { readyPods, wantedPods, problem } = this.#last;
    return `: ${readyPods} of ${wantedPods} pods were ready${problem === undefined ? "" : `, ${problem.text}`}`;
  }

  #stillWanted(workload: Workload | undefined): Workload {
    const what = describeWorkload(this.#wait.ref);
    if (workload === undefined) {
      throw new AppError("rollout_failed", `${what} was deleted meanwhile`, { hint: "deploy it again" });
    }
    if (this.#wait.stillWanted(workload)) return workload;
    throw new AppError("rollout_failed", `the change to ${what} was undone by somebody else`, { hint: "try again" });
  }

  /** Throws when the problem has lasted too long; answers what is being done about it. */
  #bear(problem: PodProblem | undefined, live: readonly Pod[]): string | undefined {
    if (problem === undefined) return undefined;
    const { clock, limit, slow } = this.#parts;
    const scalingUp = slow.isScalingUp(problem, live);
    if (scalingUp) limit.putOff();
    if (!this.#patience.isOver(problem, clock.now(), scalingUp)) {
      return scalingUp ? "an autoscaler is making one" : undefined;
    }
    const { what, ref } = this.#wait;
    throw new AppError("rollout_failed", `${what} failed: ${problem.text}`, {
      hint: `kubectl describe pod ${problem.pod} -n ${ref.namespace}`.replace("  ", " "),
      fields: { reason: problem.reason, container: problem.container },
    });
  }
}

function describeState(wait: RolloutWait, workload: Workload, state: RolloutState): string {
  const counted = `${describeWorkload(wait.ref)}: ${state.readyPods} of ${state.wantedPods} pods ready`;
  if (state.problem !== undefined) return `${counted}, ${state.problem.text}`;
  if (!state.done && workload.spec.updateStrategy?.type === "OnDelete") {
    return `${counted}; its update strategy is OnDelete: delete its pods, one after the other, to go on`;
  }
  return counted;
}

/** A rollout that began and whose pods do not come up; not a failure to see it, nor somebody else's change. */
export function isStuckRollout(error: unknown): boolean {
  return isAppError(error, "rollout_failed") && error.fields["reason"] !== undefined;
}
