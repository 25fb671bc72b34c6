// The end of `intercept`: until every ready pod's agent serves it, or refuses for good.
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError } from "#base/error.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { WorkloadFollower } from "./workload-follower.ts";

/** chosen: from the end of the rollout until every ready pod is introduced and the manager says active. */
export const activeTimeoutMs = 30_000;
/** chosen: how long a refusal must last after the last introduction; agents dial at once and confirm within 2 s. */
const refusedMs = 3000;

export interface ActiveWait {
  /** The manager's latest word. */
  readonly info: () => InterceptInfo | undefined;
  readonly follower: WorkloadFollower;
  /** Where agents do not run yet: resolves when they are said to, rejects when one will not. */
  readonly started?: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** What would keep agents from the manager: one that cannot reach it for this reason will not at the next attempt. */
  readonly obstacles?: readonly string[] | undefined;
  /** Woken when either may have changed. */
  readonly changes: Changes;
  readonly clock: Clock;
}

export async function waitActive(wait: ActiveWait, signal: AbortSignal): Promise<InterceptInfo> {
  const early = wait.started === undefined ? undefined : await activeBefore(wait.started, wait, signal);
  if (early !== undefined) return early;
  using limit = deadline(wait.clock, activeTimeoutMs, "waiting for the traffic-agents", signal);
  return await untilActive(wait, limit.signal);
}

/** Agents may serve before the cluster tells that they run; undefined when it told first. No time-out: an image is pulled. */
async function activeBefore(
  started: (signal: AbortSignal) => Promise<void>,
  wait: ActiveWait,
  signal: AbortSignal,
): Promise<InterceptInfo | undefined> {
  const ending = new AbortController();
  using either = linkSignals(signal, ending.signal);
  const active = untilActive(wait, either.signal);
  const running = started(either.signal).then(() => undefined);
  try {
    return await Promise.race([active, running]);
  } finally {
    ending.abort(new AppError("cancelled", "the other was quicker"));
    await Promise.allSettled([active, running]);
  }
}

async function untilActive(wait: ActiveWait, signal: AbortSignal): Promise<InterceptInfo> {
  const { follower, changes, clock } = wait;
  let refusedSinceMs: number | undefined;
  for (;;) {
    const info = wait.info();
    throwIfCutOff(wait);
    // One agent makes it active; a caller may reach any of the pods.
    if (info?.state === "active" && follower.isComplete(info.pods)) return info;
    // An agent of a pod that is being replaced refuses what only its successor knows, and may do so long before the
    // successor is heard: a refusal counts when it has outlived the introduction of every ready pod.
    if (info?.state === "error" && follower.isIntroduced) {
      refusedSinceMs ??= clock.now();
      const leftMs = refusedSinceMs + refusedMs - clock.now();
      if (leftMs <= 0) throw new AppError("manager_failed", info.message);
      using _settled = clock.after(leftMs, () => changes.wake());
      await nextChange(wait, signal);
    } else {
      refusedSinceMs = undefined;
      await nextChange(wait, signal);
    }
  }
}

/** Of an agent that did not reach the manager the known reason is told, and no other attempt waited for. */
function throwIfCutOff({ follower: { failure }, obstacles: [obstacle] = [] }: ActiveWait): void {
  if (obstacle === undefined || !isAppError(failure, "timeout")) return;
  throw new AppError("timeout", `${failure.message}: ${obstacle}`, { cause: failure });
}

async function nextChange({ info, follower, changes }: ActiveWait, signal: AbortSignal): Promise<void> {
  try {
    await changes.next(signal);
  } catch (error) {
    if (!isAppError(error, "timeout")) throw error;
    const last = info();
    const why = last?.state === "error" ? `; ${last.message}` : "";
    throw new AppError("timeout", `the intercept did not become active: ${follower.describe()}${why}`, {
      cause: follower.failure ?? error,
      hint: "see `kubectl describe pod` of the workload and the log of its traffic-agent",
    });
  }
}

/** Lets many wait for "something has changed". */
export class Changes {
  readonly #waiters = new Set<() => void>();

  wake(): void {
    const waiting = [...this.#waiters]; // a woken one may wait again
    for (const wake of waiting) wake();
  }
  /** Resolves at the next `wake`, rejects with the signal's reason. */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.delete(wake);
        reject(signal.reason as Error);
      };
      const wake = (): void => {
        this.#waiters.delete(wake);
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      this.#waiters.add(wake);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
