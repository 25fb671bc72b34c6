// Pure: pods that keep the template they have when the workload's changes, and so get no agent by it: those below a
// StatefulSet's partition, and all where pods are replaced only when somebody deletes them.
import { AppError } from "#base/error.ts";
import type { Pod, Workload } from "#kube/objects.ts";
import { isLive } from "#kube/workloads/pod-problems.ts";

interface Keeping {
  readonly count: number;
  /** What the workload does, behind its name. */
  readonly does: string;
  readonly mend: string;
}

/** Only a DaemonSet says how many its nodes want. */
function podCount({ spec, status }: Workload): number {
  return status?.desiredNumberScheduled ?? spec.replicas ?? 1;
}

function judgeKeeping(workload: Workload): Keeping | undefined {
  const { type, rollingUpdate } = workload.spec.updateStrategy ?? {};
  const all = podCount(workload);
  if (type === "OnDelete") {
    return { count: all, does: "replaces its pods only when they are deleted (OnDelete)", mend: "delete them" };
  }
  const { partition = 0 } = rollingUpdate ?? {};
  if (partition <= 0) return undefined;
  const does = `updates its pods from number ${partition} on only (partition)`;
  return { count: Math.min(partition, all), does, mend: "lower the partition" };
}

export function keptCount(workload: Workload): number {
  return judgeKeeping(workload)?.count ?? 0;
}

/** Pods that a change of the template replaces. */
export function replacedCount(workload: Workload): number {
  return podCount(workload) - keptCount(workload);
}

/** Before the template is changed: throws where no pod would get the agent. */
export function refuseKept(workload: Workload, what: string): void {
  const keeping = judgeKeeping(workload);
  if (keeping === undefined || keeping.count === 0 || replacedCount(workload) > 0) return;
  throw new AppError("not_interceptable", `${what} ${keeping.does}: none would get the traffic-agent`, {
    hint: "--agent ephemeral brings it into pods that run; or change spec.updateStrategy",
  });
}

/** After the agent was taken out: which pods still have it, and what to do. */
export function warnOfStaying(
  workload: Workload,
  what: string,
  { pods, hasAgent }: { readonly pods: readonly Pod[]; readonly hasAgent: (pod: Pod) => boolean },
): string | undefined {
  const keeping = judgeKeeping(workload);
  const names = pods.filter((pod) => isLive(pod) && hasAgent(pod)).map((pod) => pod.metadata.name ?? "");
  if (keeping === undefined || names.length === 0) return undefined;
  const count = names.length === 1 ? "one pod" : `${names.length} pods`;
  return `${what} ${keeping.does}: the traffic-agent stays in ${count} (${names.join(", ")}); ${keeping.mend} to be rid of it`;
}

/** Afterwards: which pods are without it, and what to do; throws when all are. */
export function warnOfKept(
  workload: Workload,
  what: string,
  { pods, hasAgent }: { readonly pods: readonly Pod[]; readonly hasAgent: (pod: Pod) => boolean },
): readonly string[] {
  const keeping = judgeKeeping(workload);
  const live = pods.filter(isLive);
  const bare = live.filter((pod) => !hasAgent(pod)).map((pod) => pod.metadata.name ?? "");
  if (keeping === undefined || bare.length === 0) return [];
  const without = `${what} ${keeping.does}: no traffic-agent is in ${bare.join(", ")}`;
  if (bare.length < live.length)
    return [`${without}, which the intercept leaves alone; ${keeping.mend} to have them too`];
  throw new AppError("not_interceptable", without, { hint: `${keeping.mend}, or leave it to --agent ephemeral` });
}
