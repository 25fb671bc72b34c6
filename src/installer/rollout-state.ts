// Pure: how far a rollout is and what holds it up, out of the workload, its pods and its events.
import type { KubeEvent, Pod, Workload } from "#kube/objects.ts";
import { findProblem, isLive, isReady } from "#kube/workloads/pod-problems.ts";
import type { PodProblem } from "#kube/workloads/pod-problems.ts";
import type { WorkloadKind } from "#kube/workloads/workloads.ts";
import { keptCount, replacedCount } from "./kept-pods.ts";

export interface RolloutView {
  readonly kind: WorkloadKind;
  /** Undefined when it has been deleted. */
  readonly workload: Workload | undefined;
  readonly pods: readonly Pod[];
  readonly events: readonly KubeEvent[];
  /** Pods of the state that is waited for. */
  readonly isNew: (pod: Pod) => boolean;
  /** Generation of the template that is waited for. */
  readonly generation: number;
}

export interface RolloutState {
  readonly done: boolean;
  readonly readyPods: number;
  readonly wantedPods: number;
  readonly problem: PodProblem | undefined;
}

export function judgeRollout(view: RolloutView): RolloutState {
  const { workload } = view;
  const live = view.pods.filter(isLive);
  const fresh = live.filter(view.isNew);
  const readyPods = fresh.filter(isReady).length;
  const wantedPods = workload === undefined ? 0 : replacedCount(workload);
  const observed = Number(workload?.status?.observedGeneration ?? 0) >= view.generation;
  const replaced = live.length - fresh.length <= (workload === undefined ? 0 : keptCount(workload));
  const done = observed && replaced && readyPods >= wantedPods && isAvailable(view);
  return { done, readyPods, wantedPods, problem: done ? undefined : findBlock(view, observed, fresh) };
}

/** These count availability (minReadySeconds) before they go on. */
function isAvailable({ kind, workload }: RolloutView): boolean {
  const { availableReplicas = 0, numberAvailable = 0, desiredNumberScheduled = 0 } = workload?.status ?? {};
  if (kind === "DaemonSet") return numberAvailable >= desiredNumberScheduled;
  return (kind !== "Deployment" && kind !== "Rollout") || availableReplicas >= (workload?.spec.replicas ?? 1);
}

function findBlock(view: RolloutView, observed: boolean, fresh: readonly Pod[]): PodProblem | undefined {
  const problem = findProblem(...fresh.filter((pod) => !isReady(pod)));
  if (problem !== undefined || !observed) return problem;
  const { phase, message } = view.workload?.status ?? {};
  if (phase === "Paused") {
    const text = `its rollout waits at a step until somebody promotes it (${message ?? phase})`;
    return { severity: "waiting", pod: "", container: undefined, reason: "Paused", text };
  }
  const refused = refusedPods(view);
  if (refused === undefined) return undefined;
  return {
    // Pod security and policies do not change their mind; a quota may be freed, a webhook's server may come back.
    severity: /violates PodSecurity|^ValidatingAdmissionPolicy '/.test(refused) ? "fatal" : "waiting",
    pod: "",
    container: undefined,
    reason: "FailedCreate",
    text: `its new pods are refused: ${refused}`,
  };
}

/** The reason why no pod is made: the controller's condition, or the newest of the workload's own events. */
function refusedPods({ workload, events, kind }: RolloutView): string | undefined {
  const failure = workload?.status?.conditions?.find(
    (item) => item.type === "ReplicaFailure" && item.status === "True",
  );
  if (failure?.message !== undefined) return shorten(failure.message);
  if (kind === "Deployment") return undefined;
  const uid = workload?.metadata.uid;
  const event = events
    .filter((item) => item.involvedObject?.uid === uid && item.type === "Warning" && item.reason === "FailedCreate")
    .toSorted((a, b) => timeOf(a).localeCompare(timeOf(b)))
    .at(-1);
  return event?.message === undefined ? undefined : shorten(event.message);
}

function timeOf(event: KubeEvent): string {
  return event.lastTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp ?? "";
}

/** `pods "hello-7d9-" is forbidden: …` and `create Pod hello-0 in StatefulSet hello failed error: …` without the prefix. */
function shorten(message: string): string {
  return message
    .replace(/^.*?failed error: /, "")
    .replace(/^Internal error occurred: /, "")
    .replace(/^(Error creating: )?pods "[^"]*" is forbidden: /, "")
    .replace(/\s+/g, " ")
    .slice(0, 600);
}
