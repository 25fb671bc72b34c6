// A ReplicaSet never replaces its pods when its template changes: it is done here, one pod at a time, and only while
// all others are ready.
import { linkSignals } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { Pod, Workload } from "#kube/objects.ts";
import { formatSelector, pods } from "#kube/objects.ts";
import { isLive, isReady } from "#kube/workloads/pod-problems.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";

export interface Replacement {
  readonly ref: WorkloadRef;
  readonly object: Workload;
  readonly isNew: (pod: Pod) => boolean;
}

export interface RunningReplacement extends AsyncDisposable {
  /** Throws when replacing failed. */
  check(): void;
}

const pollMs = 500;

export function replacePodsByHand(kube: Kube, wait: Replacement, signal: AbortSignal): RunningReplacement {
  if (wait.ref.kind !== "ReplicaSet") return { check: () => undefined, [Symbol.asyncDispose]: () => Promise.resolve() };
  const ending = new AbortController();
  let failed: Error | undefined;
  const running = run(kube, wait, [signal, ending.signal]).catch((error: unknown) => {
    if (!ending.signal.aborted) failed = error as Error;
  });
  return {
    check: () => {
      if (failed !== undefined) throw failed;
    },
    [Symbol.asyncDispose]: async () => {
      ending.abort(new AppError("cancelled", "the wait is over"));
      await running;
    },
  };
}

async function run(kube: Kube, { ref, object, isNew }: Replacement, parents: readonly AbortSignal[]): Promise<void> {
  using linked = linkSignals(...parents);
  const { signal } = linked;
  const query = { namespace: ref.namespace, labelSelector: formatSelector(object.spec.selector ?? {}) };
  for (;;) {
    const live = (await kube.list(pods, query, signal)).items.filter(isLive);
    const next = live.find((pod) => !isNew(pod));
    if (next === undefined) return;
    if (live.filter(isReady).length >= (object.spec.replicas ?? 1)) {
      await kube.delete(
        pods,
        { namespace: ref.namespace, name: next.metadata.name ?? "", uid: next.metadata.uid },
        signal,
      );
    }
    await kube.clock.sleep(pollMs, signal);
  }
}
