// From a name to what is intercepted: the workload, its services, and which container port each choice of the user
// means. Choices that are not unique are errors that list them.
import { AppError, isAppError } from "#base/error.ts";
import type { Kube } from "./client.ts";
import type { KubeObject, Pod, Resource, Service, Workload } from "./objects.ts";
import { deployments, matchesLabels, pods, replicaSets, services, statefulSets } from "./objects.ts";
import { planPorts } from "./port-choice.ts";
import type { ChosenPort } from "./port-choice.ts";

export const workloadResources = {
  Deployment: deployments,
  StatefulSet: statefulSets,
  ReplicaSet: replicaSets,
} as const satisfies Record<string, Resource<Workload>>;
export type WorkloadKind = keyof typeof workloadResources;
const kinds = Object.keys(workloadResources) as readonly WorkloadKind[];

export interface FoundWorkload {
  readonly kind: WorkloadKind;
  readonly name: string;
  readonly namespace: string;
  readonly object: Workload;
}

/** `deployment hello` for messages. */
export function describeWorkload(workload: { readonly kind: string; readonly name: string }): string {
  return `${workload.kind.toLowerCase()} ${workload.name}`;
}

/** Every workload that can be intercepted: those without an owner. All namespaces when none is given. */
export async function listWorkloads(
  kube: Kube,
  namespace: string | undefined,
  signal: AbortSignal,
): Promise<readonly FoundWorkload[]> {
  const lists = await Promise.all(
    kinds.map((kind) => settled(kube.list(workloadResources[kind], { namespace }, signal))),
  );
  const refused = lists.find((list) => list instanceof AppError);
  if (refused instanceof AppError && lists.every((list) => list instanceof AppError)) throw refused;
  return kinds.flatMap((kind, index) => {
    const list = lists[index];
    return list === undefined || list instanceof AppError
      ? []
      : list.items.flatMap((object) => toFound(kind, object) ?? []);
  });
}

/** One workload by kind and name; undefined when there is none. */
export async function findWorkload(
  kube: Kube,
  ref: { readonly kind: WorkloadKind; readonly namespace: string; readonly name: string },
  signal: AbortSignal,
): Promise<FoundWorkload | undefined> {
  const object = await kube.find(workloadResources[ref.kind], ref, signal);
  return object === undefined ? undefined : toFound(ref.kind, object);
}

function toFound(kind: WorkloadKind, object: Workload): FoundWorkload | undefined {
  const { name, namespace, ownerReferences } = object.metadata;
  if (name === undefined || namespace === undefined) return undefined;
  if (ownerReferences?.some((owner) => owner.controller === true) === true) return undefined;
  return { kind, name, namespace, object };
}

/** A refusal (missing right or kind) as a value; anything else is thrown. */
async function settled<T>(promise: Promise<T>): Promise<T | AppError> {
  return await promise.catch((error: unknown) => {
    if (isAppError(error, "forbidden") || isAppError(error, "not_found")) return error;
    throw error;
  });
}

export interface InterceptQuery {
  /** A service or a workload; only a label when `service` or `workload` is given. */
  readonly name: string;
  readonly namespace: string;
  readonly service?: string | undefined;
  readonly workload?: string | undefined;
  /** Container whose environment the laptop wants. */
  readonly container?: string | undefined;
  /** `local[:service port name or number]`. */
  readonly ports: readonly string[];
}

export interface ResolvedWorkload {
  readonly workload: FoundWorkload;
  /** Every service that selects the workload's pods: the agent takes the ports of all. */
  readonly services: readonly Service[];
  readonly containerName: string;
  readonly ports: readonly ChosenPort[];
}

export interface ResolveOptions {
  readonly signal: AbortSignal;
  /** Gives a workload as it is without our agent (installer/), so that names mean what the user knows. */
  readonly withoutAgent: (object: Workload) => Workload;
}

export async function resolveWorkload(
  kube: Kube,
  query: InterceptQuery,
  { signal, withoutAgent }: ResolveOptions,
): Promise<ResolvedWorkload> {
  const { namespace } = query;
  const all = (await kube.list(services, { namespace }, signal)).items;
  const picked = await pickWorkload(kube, query, all, signal);
  const object = withoutAgent(picked.workload.object);
  const workload = { ...picked.workload, object };
  refuseUnfit(workload);
  const selecting = all.filter((service) => selects(service, object));
  const wanted = picked.service === undefined ? selecting : selecting.filter((item) => nameOf(item) === picked.service);
  if (wanted.length === 0) {
    throw new AppError("not_interceptable", `${describeWorkload(workload)} in namespace ${namespace} has no service`, {
      hint: "create a Service that selects its pods",
    });
  }
  const ports = planPorts(object.spec.template.spec, wanted, query.ports, describeWorkload(workload));
  const containerName = query.container ?? ports[0]?.containerName ?? "";
  const known = object.spec.template.spec.containers.map((container) => container.name);
  if (!known.includes(containerName)) {
    throw new AppError("not_found", `${describeWorkload(workload)} has no container ${JSON.stringify(containerName)}`, {
      hint: `choose with --container: ${known.join(", ")}`,
    });
  }
  return { workload, services: selecting, containerName, ports };
}

interface Picked {
  readonly workload: FoundWorkload;
  /** Set when only this service's ports were meant. */
  readonly service: string | undefined;
}

async function pickWorkload(
  kube: Kube,
  query: InterceptQuery,
  all: readonly Service[],
  signal: AbortSignal,
): Promise<Picked> {
  const { namespace } = query;
  const service = pickService(query, all);
  const named = await pickNamed(kube, query, signal);
  if (service === undefined) {
    if (named === undefined) throw workloadMissing(query.name, namespace);
    return { workload: named, service: undefined };
  }
  if (named !== undefined && selects(service, named.object)) return { workload: named, service: nameOf(service) };
  refuseService(service);
  if (query.workload !== undefined && named !== undefined) throw notSelected(service, named);
  const workload = await behindService(kube, service, namespace, signal);
  if (named !== undefined) throw namesDiffer(query.name, workload, named);
  return { workload, service: nameOf(service) };
}

/** The workload that is meant by name; one asked for by --workload must exist. */
async function pickNamed(kube: Kube, query: InterceptQuery, signal: AbortSignal): Promise<FoundWorkload | undefined> {
  const wanted = query.workload ?? (query.service === undefined ? query.name : undefined);
  if (wanted === undefined) return undefined;
  const named = await findByName(kube, query.namespace, wanted, signal);
  if (query.workload !== undefined && named === undefined) throw workloadMissing(query.workload, query.namespace);
  return named;
}

/** The service that is meant: the one asked for, or one that has the name. */
function pickService(query: InterceptQuery, all: readonly Service[]): Service | undefined {
  const wanted = query.service ?? (query.workload === undefined ? query.name : undefined);
  const service = all.find((item) => nameOf(item) === wanted);
  if (query.service === undefined || service !== undefined) return service;
  throw new AppError("not_found", `service ${query.service} was not found in namespace ${query.namespace}`, {
    hint: all.length === 0 ? "the namespace has no services" : `there are: ${names(all.map(nameOf))}`,
  });
}

async function findByName(
  kube: Kube,
  namespace: string,
  name: string,
  signal: AbortSignal,
): Promise<FoundWorkload | undefined> {
  const found = await Promise.all(kinds.map((kind) => settled(findWorkload(kube, { kind, namespace, name }, signal))));
  const first = found.find((item) => item !== undefined && !(item instanceof AppError));
  if (first !== undefined && !(first instanceof AppError)) return first;
  const refused = found.find((item) => item instanceof AppError);
  if (refused instanceof AppError) throw refused;
  return undefined;
}

async function behindService(
  kube: Kube,
  service: Service,
  namespace: string,
  signal: AbortSignal,
): Promise<FoundWorkload> {
  const selected = (await listWorkloads(kube, namespace, signal)).filter((item) => selects(service, item.object));
  const running = selected.filter((item) => item.object.spec.replicas !== 0);
  const candidates = running.length > 0 ? running : selected;
  const [only, ...others] = candidates;
  if (only === undefined) throw await nothingBehind(kube, service, namespace, signal);
  if (others.length > 0) {
    throw new AppError(
      "ambiguous",
      `service ${nameOf(service)} leads to ${candidates.length} workloads: ${names(candidates.map(describeWorkload))}`,
      { hint: "choose one with --workload", fields: { workloads: candidates.map((item) => item.name) } },
    );
  }
  return only;
}

async function nothingBehind(kube: Kube, service: Service, namespace: string, signal: AbortSignal): Promise<AppError> {
  const selector = Object.entries(service.spec.selector ?? {}).map(([key, value]) => `${key}=${value}`);
  const found = await settled(kube.list(pods, { namespace, labelSelector: selector.join(",") }, signal));
  const pod = found instanceof AppError ? undefined : found.items[0];
  if (pod === undefined) {
    return new AppError("not_interceptable", `service ${nameOf(service)} in namespace ${namespace} has no pods`, {
      hint: `deploy something that carries its labels (${selector.join(", ")})`,
    });
  }
  return new AppError(
    "not_interceptable",
    `service ${nameOf(service)} in namespace ${namespace} leads to ${describeOwner(pod)}, expected a Deployment, StatefulSet or ReplicaSet`,
    { hint: "intercept a workload of one of those kinds" },
  );
}

function describeOwner(pod: Pod): string {
  const owner = pod.metadata.ownerReferences?.find((item) => item.controller === true);
  return owner === undefined ? `pod ${pod.metadata.name ?? ""} without a workload` : `${owner.kind} ${owner.name}`;
}

function refuseService(service: Service): void {
  const name = nameOf(service);
  if (service.spec.type === "ExternalName") {
    throw new AppError(
      "not_interceptable",
      `service ${name} is an ExternalName for ${service.spec.externalName ?? "another host"}: no pod of this cluster serves it`,
      { hint: "intercept the workload behind it" },
    );
  }
  if (Object.keys(service.spec.selector ?? {}).length === 0) {
    throw new AppError("not_interceptable", `service ${name} has no selector, so no pods of its own`, {
      hint: "intercept a workload, or give the service a selector",
    });
  }
}

function refuseUnfit(workload: FoundWorkload): void {
  const { spec } = workload.object;
  const what = describeWorkload(workload);
  if (spec.template.spec.hostNetwork === true) {
    throw new AppError(
      "not_interceptable",
      `${what} uses the node's network (hostNetwork), where an agent's ports would be the node's own`,
      { hint: "run it without hostNetwork" },
    );
  }
  if (spec.replicas === 0) {
    throw new AppError(
      "not_interceptable",
      `${what} in namespace ${workload.namespace} is scaled to 0: it has no pods`,
      {
        hint: `kubectl scale ${workload.kind.toLowerCase()} ${workload.name} -n ${workload.namespace} --replicas=1`,
      },
    );
  }
  if (spec.paused === true) {
    throw new AppError(
      "not_interceptable",
      `${what} in namespace ${workload.namespace} is paused: its pods are not replaced`,
      {
        hint: `kubectl rollout resume ${workload.kind.toLowerCase()} ${workload.name} -n ${workload.namespace}`,
      },
    );
  }
}

function workloadMissing(name: string, namespace: string): AppError {
  return new AppError(
    "workload_not_found",
    `no service and no workload ${JSON.stringify(name)} in namespace ${namespace}`,
    {
      hint: `see \`telepresence list -n ${namespace}\``,
    },
  );
}

function notSelected(service: Service, workload: FoundWorkload): AppError {
  return new AppError(
    "not_interceptable",
    `service ${nameOf(service)} does not lead to ${describeWorkload(workload)}`,
    {
      hint: "leave out --service or --workload",
    },
  );
}

function namesDiffer(name: string, behind: FoundWorkload, named: FoundWorkload): AppError {
  return new AppError(
    "ambiguous",
    `${JSON.stringify(name)} is a service that leads to ${describeWorkload(behind)}, and also ${describeWorkload(named)}`,
    { hint: `choose with --service ${name} or --workload ${name}` },
  );
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

function nameOf(object: KubeObject): string {
  return object.metadata.name ?? "";
}

function names(items: readonly string[]): string {
  return items.length <= 20 ? items.join(", ") : `${items.slice(0, 20).join(", ")} and ${items.length - 20} more`;
}
