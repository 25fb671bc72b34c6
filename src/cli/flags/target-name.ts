// `kind/name`, as kubectl has it, where a service or workload is named: `deploy/hello` is hello.
import { AppError } from "#base/error.ts";
import type { WorkloadKind } from "#wire/manager-api.ts";

export interface TargetName {
  readonly name: string;
  /** What the kind says it is. */
  readonly as: "service" | "workload" | undefined;
  /** Of a workload whose kind was said. */
  readonly kind?: WorkloadKind;
}

const serviceKinds = /^(services?|svc)$/i;
/** kubectl's names, the group behind them or not. */
const workloadKinds: readonly (readonly [RegExp, WorkloadKind])[] = [
  [/^(deployments?|deploy)(\.apps)?$/i, "Deployment"],
  [/^(statefulsets?|sts)(\.apps)?$/i, "StatefulSet"],
  [/^(daemonsets?|ds)(\.apps)?$/i, "DaemonSet"],
  [/^(replicasets?|rs)(\.apps)?$/i, "ReplicaSet"],
  [/^(rollouts?|ro)(\.argoproj\.io)?$/i, "Rollout"],
  [/^(cronjobs?|cj)(\.batch)?$/i, "CronJob"],
  [/^jobs?(\.batch)?$/i, "Job"],
  [/^(pods?|po)$/i, "Pod"],
];

/** Throws for a kind that cannot be intercepted. */
export function readTargetName(text: string): TargetName {
  const slash = text.indexOf("/");
  if (slash === -1) return { name: text, as: undefined };
  const said = text.slice(0, slash);
  const name = text.slice(slash + 1);
  const kind = workloadKinds.find(([pattern]) => pattern.test(said))?.[1];
  if (name !== "" && !name.includes("/")) {
    if (kind !== undefined) return { name, as: "workload", kind };
    if (serviceKinds.test(said)) return { name, as: "service" };
  }
  throw new AppError(
    "usage",
    `the name is "${text}", expected that of a service or workload, as hello or deploy/hello`,
  );
}
