// Names by which our things in a cluster are found again. They are stable: an older version must find what a newer
// one installed and the other way round.
import { AppError } from "#base/error.ts";
import type { ObjectMeta, PodTemplate } from "#kube/objects.ts";

/** On the pod template: what an injection changed, for its inverse (agent.ts). */
export const agentRecordAnnotation = "telepresence.io/traffic-agent";
/**
 * On the pod template, or on the CronJob itself: whose stand-in is in the place of which container, and what was there
 * (replacement.ts, cron-job-replacement.ts).
 */
export const replacedAnnotation = "telepresence.io/replaced";
/** `disabled` on a pod template keeps agents out; the second spelling is the older one. */
export const injectAnnotations = [
  "telepresence.io/inject-traffic-agent",
  "telepresence.getambassador.io/inject-traffic-agent",
];
/** `true` on a pod template whose agent is part of the manifest: it is used, and never changed or removed by us. */
export const inManifestAnnotation = "telepresence.io/manually-injected";
/** The same in the original. */
const olderInManifestAnnotation = "telepresence.getambassador.io/manually-injected";

/** Whether the agent of a pod template is somebody's to keep: it stands in a manifest. */
export function isInManifest({ metadata }: PodTemplate): boolean {
  const { annotations = {} } = metadata ?? {};
  return annotations[inManifestAnnotation] === "true" || annotations[olderInManifestAnnotation] === "true";
}

export const managerName = "traffic-manager";
/** ConfigMap of the nodes' addresses, and its only key. */
export const nodeListName = "traffic-manager-nodes";
export const nodeListKey = "nodes";
/** On a namespace that we created, so that we may remove it. */
export const createdNamespaceLabel = "telepresence.io/created-namespace";

export const managerSelector: Readonly<Record<string, string>> = {
  "app.kubernetes.io/name": managerName,
  "app.kubernetes.io/managed-by": "telepresence",
};
export const managerSelectorText = Object.entries(managerSelector)
  .map(([key, value]) => `${key}=${value}`)
  .join(",");

export function isOurs(meta: ObjectMeta): boolean {
  return Object.entries(managerSelector).every(([key, value]) => meta.labels?.[key] === value);
}

/** An agent in the traffic-manager would wait for the manager that it holds back. */
export function refuseManager(labels: ObjectMeta["labels"], what: string): void {
  if (labels === undefined || !isOurs({ labels })) return;
  throw new AppError("not_interceptable", `${what} is the traffic-manager, which takes no agent`, {
    hint: "choose a workload of yours, see `telepresence list`",
  });
}
