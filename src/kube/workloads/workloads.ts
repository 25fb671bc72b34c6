// The kinds of workload that can be intercepted, and how each is found and read. Whatever the kind, the rest of the
// product sees an object with a pod template: a CronJob's is that of its Jobs, a pod is its own, and a Rollout of Argo
// may use a Deployment's.
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { CronJob, KubeObject, Pod, Resource, Service, Workload } from "#kube/objects.ts";
import {
  cronJobs,
  daemonSets,
  deployments,
  jobs,
  matchesLabels,
  pods,
  replicaSets,
  rollouts,
  statefulSets,
} from "#kube/objects.ts";
import { settled } from "#kube/refusals.ts";

/** Their pods are replaced, by a controller or by us, when the template changes. */
export const templatedResources = {
  Rollout: rollouts,
  Deployment: deployments,
  StatefulSet: statefulSets,
  DaemonSet: daemonSets,
  ReplicaSet: replicaSets,
} as const satisfies Record<string, Resource<Workload>>;
export type TemplatedKind = keyof typeof templatedResources;

export const workloadResources = {
  ...templatedResources,
  CronJob: cronJobs,
  Job: jobs,
  Pod: pods,
} as const satisfies Record<string, Resource<KubeObject>>;
export type WorkloadKind = keyof typeof workloadResources;

export const templatedKinds = Object.keys(templatedResources) as readonly TemplatedKind[];
/** Looked for only where nothing of the kinds above is meant. */
export const otherKinds: readonly WorkloadKind[] = ["CronJob", "Job", "Pod"];

export const allKinds: readonly WorkloadKind[] = [...templatedKinds, ...otherKinds];

export function isTemplated(kind: WorkloadKind): kind is TemplatedKind {
  return kind in templatedResources;
}

export interface WorkloadName {
  readonly kind: WorkloadKind;
  readonly name: string;
  readonly namespace: string;
}

export interface FoundWorkload extends WorkloadName {
  /** As the rest of the product sees it; to be changed is only what is in the cluster. */
  readonly object: Workload;
}

/** `deployment hello` for messages. */
export function describeWorkload(workload: { readonly kind: string; readonly name: string }): string {
  return `${workload.kind.toLowerCase()} ${workload.name}`;
}

/** Every workload of these kinds that can be intercepted: those that no other of them owns. All namespaces when none is given. */
export async function listWorkloads(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
  kinds: readonly WorkloadKind[] = templatedKinds,
): Promise<readonly FoundWorkload[]> {
  const lists = await Promise.all(
    kinds.map((kind) => settled<{ readonly items: readonly KubeObject[] }>(listKind(kube, kind, namespace, signal))),
  );
  const refused = lists.find((list) => list instanceof AppError && list.code === "forbidden");
  if (refused instanceof AppError && lists.every((list) => list instanceof AppError)) throw refused;
  const raw = kinds.flatMap((kind, index) => {
    const list = lists[index];
    return list === undefined || list instanceof AppError ? [] : list.items.map((object) => ({ kind, object }));
  });
  const known = raw.filter((item) => item.kind === "Deployment").map(({ object }) => object as Workload);
  return raw.flatMap(({ kind, object }) => toFound(kind, object, (name) => known.find(hasName(name))) ?? []);
}

function listKind(kube: Kube, kind: WorkloadKind, namespace: string | undefined, signal: AbortSignal) {
  const resource: Resource<KubeObject> = workloadResources[kind];
  return kube.list(resource, { namespace }, signal);
}

/** One workload by kind and name; undefined when there is none, or another one owns it. */
export async function findWorkload(
  kube: Kube,
  { kind, namespace, name }: WorkloadName,
  signal: AbortSignal,
): Promise<FoundWorkload | undefined> {
  const resource: Resource<KubeObject> = workloadResources[kind];
  const object = await kube.find(resource, { namespace, name }, signal);
  if (object === undefined) return undefined;
  const holder = templateHolder({ kind, namespace, name }, object as Workload);
  if (holder.kind === kind) return toFound(kind, object);
  const referred = await kube.find(templatedResources[holder.kind], holder, signal);
  return toFound(kind, object, () => referred);
}

function hasName(name: string): (object: KubeObject) => boolean {
  return (object) => object.metadata.name === name;
}

export type TemplatedName = WorkloadName & { readonly kind: TemplatedKind };

export interface HeldTemplate {
  readonly own: Workload;
  /** Where the template is, and its object. */
  readonly holder: TemplatedName;
  readonly held: Workload;
}

export async function getTemplate(kube: Kube, ref: TemplatedName, signal: AbortSignal): Promise<HeldTemplate> {
  const own = await kube.get(templatedResources[ref.kind], ref, signal);
  const holder = templateHolder(ref, own);
  const held = holder.kind === ref.kind ? own : await kube.get(templatedResources[holder.kind], holder, signal);
  return { own, holder, held };
}

/** The object whose template makes the workload's pods: itself, but for a Rollout that refers to a Deployment. */
export function templateHolder(ref: WorkloadName, object: Workload): TemplatedName {
  const { workloadRef } = ref.kind === "Rollout" ? object.spec : {};
  const kind = workloadRef?.kind;
  if (workloadRef?.name !== undefined && (kind === "Deployment" || kind === "ReplicaSet")) {
    return { ...ref, kind, name: workloadRef.name };
  }
  return ref as TemplatedName;
}

/** The workload itself, or a Rollout with the template, the selector and the generation of the Deployment that it refers to. */
export function withTemplateOf(rollout: Workload, holder: Workload): Workload {
  const { selector = holder.spec.selector } = rollout.spec;
  if (holder === rollout) return rollout;
  return {
    ...rollout,
    metadata: { ...rollout.metadata, generation: holder.metadata.generation ?? 0 },
    spec: { ...rollout.spec, ...(selector === undefined ? {} : { selector }), template: holder.spec.template },
    status: { ...rollout.status, observedGeneration: rollout.status?.workloadObservedGeneration ?? 0 },
  };
}

function toFound(
  kind: WorkloadKind,
  raw: KubeObject,
  referred: (name: string) => Workload | undefined = () => undefined,
): FoundWorkload | undefined {
  const { name, namespace } = raw.metadata;
  if (name === undefined || namespace === undefined || ownerOf(raw) !== undefined) return undefined;
  const object = readObject(kind, raw, referred);
  return object === undefined ? undefined : { kind, name, namespace, object };
}

function readObject(
  kind: WorkloadKind,
  raw: KubeObject,
  referred: (name: string) => Workload | undefined,
): Workload | undefined {
  if (kind === "CronJob") return readCronJob(raw as CronJob);
  if (kind === "Pod") return readPod(raw as Pod);
  const object = raw as Workload;
  const { metadata } = raw;
  const ref = { kind, name: metadata.name ?? "", namespace: metadata.namespace ?? "" };
  const holder = templateHolder(ref, object);
  if (holder.kind === kind) return object;
  const found = referred(holder.name);
  return found === undefined ? undefined : withTemplateOf(object, found);
}

/** The CronJob as an object with the template of its Jobs. */
export function readCronJob({ spec, ...rest }: CronJob): Workload {
  return { ...rest, spec: { template: spec.jobTemplate.spec.template } };
}

function readPod({ metadata, spec, status }: Pod): Workload {
  const { labels, annotations } = metadata;
  const template = { metadata: { ...(labels && { labels }), ...(annotations && { annotations }) }, spec };
  return { metadata, spec: { template }, status: { ...(status?.phase && { phase: status.phase }) } };
}

/** By what a pod or a workload belongs to another one; any other owner (an operator's object) is none of ours. */
const owningKinds = new Set([...Object.keys(workloadResources), "ReplicationController", "Node"]);
/** Operators have kinds of these names too. */
const owningGroups = new Set(["v1", "apps", "batch", "argoproj.io"]);

/**
 * `true` on a Job of ours that stands in for the CronJob that owns it. The CronJob does not control it, or it would count
 * it among its runs, but it is a part of it: nobody means it by a name or a service of its own.
 */
export const standInLabel = "telepresence.io/stand-in";

/** The workload that owns this object, as `ReplicaSet hello-7d9`; undefined for one that stands for itself. */
export function ownerOf({ metadata }: KubeObject): string | undefined {
  const isStandIn = metadata.labels?.[standInLabel] === "true";
  const owner = metadata.ownerReferences?.find(
    ({ apiVersion, kind, controller }) =>
      (controller === true || isStandIn) && owningKinds.has(kind) && owningGroups.has(apiVersion.split("/")[0] ?? ""),
  );
  return owner === undefined ? undefined : `${owner.kind} ${owner.name}`;
}

/** Why there will be no pods any more, as a clause; undefined for what goes on. */
export function whyEnded({ kind, object }: Pick<FoundWorkload, "kind" | "object">): string | undefined {
  if (kind === "Job") {
    const { conditions = [] } = object.status ?? {};
    const done = conditions.find((item) => ["Complete", "Failed"].includes(item.type) && item.status === "True");
    return done === undefined ? undefined : done.type === "Complete" ? "is finished" : "has failed";
  }
  if (kind !== "Pod") return undefined;
  const phase = object.status?.phase;
  return phase === "Succeeded" ? "is finished" : phase === "Failed" ? "has failed" : undefined;
}

/** Whether a service's traffic reaches the workload's pods. */
export function selects(service: Service, workload: Workload): boolean {
  return (
    service.spec.type !== "ExternalName" &&
    matchesLabels(service.spec.selector ?? {}, workload.spec.template.metadata?.labels)
  );
}

export function selectsPod(service: Service, pod: Pod): boolean {
  return service.spec.type !== "ExternalName" && matchesLabels(service.spec.selector ?? {}, pod.metadata.labels);
}
