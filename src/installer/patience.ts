// How long a problem that may mend itself is borne before it ends a wait, and a wait's bound that an autoscaler puts
// off. One object of each for one wait.
import { formatDuration, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { PodProblem } from "#kube/workloads/pod-problems.ts";

/**
 * Chosen. Unschedulable: cluster-autoscaler looks every 10 s by default, Karpenter sooner; whether one acts shows by
 * then. Gated: somebody's controller opens it. Restarted: when it ends once more, that is told by itself. The others:
 * retried by the kubelet. A registry that does not answer gives no `ErrImagePull` before the runtime's own time-out, 22
 * to 24 s: until then nobody can tell it from a slow one, so the wait only says what is being pulled.
 */
const graceMs: Readonly<Record<string, number>> = {
  Unschedulable: 12_000,
  SchedulingGated: 30_000,
  ErrImagePull: 10_000,
  FailedCreate: 5000,
  Restarted: 60_000,
};
const otherGraceMs = 8000;
/** Chosen: clouds take one to three minutes to bring a node up; what takes longer has failed. */
export const scaleUpMs = 300_000;

export class Patience {
  readonly #firstSeenMs = new Map<string, number>();

  /** True when this problem has lasted too long, or is fatal at once. Other problems start anew. */
  isOver(problem: Pick<PodProblem, "severity" | "pod" | "reason">, nowMs: number, scalingUp = false): boolean {
    if (problem.severity === "fatal") return true;
    const key = `${problem.pod} ${problem.reason}`;
    const sinceMs = this.#firstSeenMs.get(key) ?? nowMs;
    this.#firstSeenMs.set(key, sinceMs);
    return nowMs - sinceMs >= (scalingUp ? scaleUpMs : (graceMs[problem.reason] ?? otherGraceMs));
  }

  /** Progress was made: what was seen before no longer counts. */
  reset(): void {
    this.#firstSeenMs.clear();
  }
}

/** A `deadline` that is put off once, by the time that an autoscaler may take. */
export class WaitLimit implements Disposable {
  readonly signal: AbortSignal;
  readonly #options: { readonly clock: Clock; readonly ms: number; readonly what: string };
  readonly #controller = new AbortController();
  readonly #linked: Disposable;
  readonly #startMs: number;
  #timer: Disposable;
  #putOff = false;

  constructor(options: { readonly clock: Clock; readonly ms: number; readonly what: string }, parent: AbortSignal) {
    this.#options = options;
    const linked = linkSignals(parent, this.#controller.signal);
    this.#linked = linked;
    this.signal = linked.signal;
    this.#startMs = options.clock.now();
    this.#timer = this.#arm(options.ms);
  }

  putOff(): void {
    if (this.#putOff) return;
    this.#putOff = true;
    this.#timer[Symbol.dispose]();
    this.#timer = this.#arm(this.#options.ms + scaleUpMs);
  }
  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    this.#linked[Symbol.dispose]();
  }

  #arm(totalMs: number): Disposable {
    const { clock, what } = this.#options;
    return clock.after(this.#startMs + totalMs - clock.now(), () => {
      this.#controller.abort(new AppError("timeout", `${what} took longer than ${formatDuration(totalMs)}`));
    });
  }
}
