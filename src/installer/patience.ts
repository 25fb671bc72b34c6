// How long a problem that may mend itself is borne before it ends a wait. One object for one wait; time comes in.
import type { PodProblem } from "#kube/pod-problems.ts";

/** Chosen. Unschedulable: an autoscaler adds a node, though often later than this. The others: retried by the kubelet. */
const graceMs: Readonly<Record<string, number>> = {
  Unschedulable: 30_000,
  SchedulingGated: 30_000,
  ErrImagePull: 10_000,
  FailedCreate: 5000,
};
const otherGraceMs = 8000;

export class Patience {
  readonly #firstSeenMs = new Map<string, number>();

  /** True when this problem has lasted too long, or is fatal at once. Other problems start anew. */
  isOver(problem: Pick<PodProblem, "severity" | "pod" | "reason">, nowMs: number): boolean {
    if (problem.severity === "fatal") return true;
    const key = `${problem.pod} ${problem.reason}`;
    const sinceMs = this.#firstSeenMs.get(key) ?? nowMs;
    this.#firstSeenMs.set(key, sinceMs);
    return nowMs - sinceMs >= (graceMs[problem.reason] ?? otherGraceMs);
  }

  /** Progress was made: what was seen before no longer counts. */
  reset(): void {
    this.#firstSeenMs.clear();
  }
}
