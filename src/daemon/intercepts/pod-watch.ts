// The live pods of a workload, watched until the signal aborts, whatever becomes of a single watch.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { WorkloadAccess, WorkloadPod } from "./workload-access.ts";

export interface PodWatch {
  readonly access: Pick<WorkloadAccess, "watchPods">;
  readonly workload: WorkloadRef;
  readonly onPods: (pods: readonly WorkloadPod[]) => void;
  readonly onFailure?: (error: unknown) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: a watch that failed is tried again after this; the watch itself resumes by its own means. */
const rewatchMs = 1000;

/** Never rejects. */
export async function keepWatchingPods(watch: PodWatch, signal: AbortSignal): Promise<void> {
  const { access, workload, onPods, onFailure, clock, log } = watch;
  while (!signal.aborted) {
    try {
      await access.watchPods(workload, onPods, signal);
    } catch (error) {
      if (signal.aborted) return;
      log.warn("pod watch failed", { workload: workload.name, error: String(error) });
      onFailure?.(error);
    }
    await clock.sleep(rewatchMs, signal).catch(() => undefined); // aborted: the loop's condition ends it
  }
}
