// The pods of a workload: by its selector, by its name where it is a pod, and those of a CronJob by its Jobs, since
// nothing on such a pod names the CronJob.
import { AppError } from "#base/error.ts";
import { linkSignals } from "#base/abort.ts";
import type { Kube, ListQuery } from "#kube/client.ts";
import { watchAll } from "#kube/live-set.ts";
import type { KubeObject, Pod, Workload } from "#kube/objects.ts";
import { formatSelector, jobs, pods } from "#kube/objects.ts";
import type { FoundWorkload } from "./workloads.ts";

/** On every pod of a Job, in all versions. */
const jobLabel = "job-name";

/** Finds every pod of the workload; for a CronJob also those of other Jobs. */
export function podQuery({ kind, name, namespace, object }: FoundWorkload): ListQuery {
  if (kind === "Pod") return { namespace, fieldSelector: `metadata.name=${name}` };
  if (kind === "CronJob") return { namespace, labelSelector: jobLabel };
  return { namespace, labelSelector: formatSelector(object.spec.selector ?? {}) };
}

export async function listWorkloadPods(
  kube: Kube,
  workload: FoundWorkload,
  signal: AbortSignal,
): Promise<readonly Pod[]> {
  const listed = kube.list(pods, podQuery(workload), signal);
  if (workload.kind !== "CronJob") return (await listed).items;
  const [found, made] = await Promise.all([listed, kube.list(jobs, { namespace: workload.namespace }, signal)]);
  return ofCronJob(workload, made.items, found.items);
}

/** Calls back with all pods of the workload, at once and after each change. Returns when the signal aborts. */
export async function watchWorkloadPods(
  kube: Kube,
  workload: FoundWorkload,
  onPods: (items: readonly Pod[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const query = podQuery(workload);
  if (workload.kind !== "CronJob") {
    await watchAll(kube, { kind: pods, query }, onPods, signal);
    return;
  }
  let made: readonly Workload[] | undefined;
  let live: readonly Pod[] | undefined;
  const tell = (): void => {
    if (made !== undefined && live !== undefined) onPods(ofCronJob(workload, made, live));
  };
  const ending = new AbortController();
  using linked = linkSignals(signal, ending.signal);
  const onJobs = (now: readonly Workload[]): void => {
    made = now;
    tell();
  };
  const onLive = (now: readonly Pod[]): void => {
    live = now;
    tell();
  };
  const both = [
    watchAll(kube, { kind: jobs, query: { namespace: workload.namespace } }, onJobs, linked.signal),
    watchAll(kube, { kind: pods, query }, onLive, linked.signal),
  ];
  try {
    await Promise.race(both);
  } finally {
    ending.abort(new AppError("cancelled", "the other watch is over"));
    await Promise.allSettled(both);
  }
}

function ofCronJob({ object }: FoundWorkload, made: readonly Workload[], found: readonly Pod[]): readonly Pod[] {
  const { uid } = object.metadata;
  const own = new Set(made.filter((job) => isOwnedBy(job, uid)).map((job) => job.metadata.uid));
  return found.filter((pod) => pod.metadata.ownerReferences?.some((owner) => own.has(owner.uid)) === true);
}

function isOwnedBy({ metadata }: KubeObject, uid: string | undefined): boolean {
  return metadata.ownerReferences?.some((owner) => owner.uid === uid) === true;
}
