// From a name to what is intercepted: the workload, its services, and which container port each choice of the user
// means. Choices that are not unique are errors that list them; what cannot be intercepted is refused here, before
// anything is touched.
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeObject, Pod, PodSpec, Service, Workload } from "#kube/objects.ts";
import { pods, services } from "#kube/objects.ts";
import type { ChosenPort } from "./port-choice.ts";
import { describeAffected, planAllPorts, planPorts } from "./port-choice.ts";
import { settled } from "#kube/refusals.ts";
import type { FoundWorkload, WorkloadKind } from "./workloads.ts";
import {
  describeWorkload,
  findWorkload,
  listWorkloads,
  otherKinds,
  ownerOf,
  selects,
  templatedKinds,
  whyEnded,
} from "./workloads.ts";

export interface InterceptQuery {
  /** A service or a workload; only a label when `service` or `workload` is given. */
  readonly name: string;
  readonly namespace: string;
  readonly service?: string | undefined;
  readonly workload?: string | undefined;
  /** Of the workload, where the user has said it (`deploy/hello`). */
  readonly kind?: WorkloadKind | undefined;
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
  /** What else is intercepted with these ports, a sentence each. */
  readonly affected: readonly string[];
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
  const { all, ...picked } = await pickWorkload(kube, query, signal);
  const object = withoutAgent(picked.workload.object);
  const workload = { ...picked.workload, object };
  refuseUnfit(workload);
  const selecting = all.filter((service) => selects(service, object));
  const wanted = picked.service === undefined ? selecting : selecting.filter((item) => nameOf(item) === picked.service);
  const pod = object.spec.template.spec;
  const { ports, containerName } = choosePorts(workload, wanted, query);
  const known = pod.containers.map((container) => container.name);
  requireContainer(workload, known, containerName);
  return { workload, services: selecting, containerName, ports, affected: describeAffected(pod, selecting, ports) };
}

/** Those that are asked for; without any, all of one container. */
function choosePorts(workload: FoundWorkload, wanted: readonly Service[], query: InterceptQuery) {
  const pod = workload.object.spec.template.spec;
  if (query.ports.length > 0) {
    const ports = planPorts(pod, wanted, query.ports, describeWorkload(workload));
    return { ports, containerName: query.container ?? ports[0]?.containerName ?? "" };
  }
  const led = pod.containers.find(({ name }) => planAllPorts(pod, wanted, name).length > 0);
  const containerName = query.container ?? led?.name ?? pod.containers[0]?.name ?? "";
  return { ports: planAllPorts(pod, wanted, containerName), containerName };
}

/** Throws unless it is one of the workload's. */
export function requireContainer(workload: FoundWorkload, known: readonly string[], name: string): void {
  if (known.includes(name)) return;
  throw new AppError("not_found", `${describeWorkload(workload)} has no container ${JSON.stringify(name)}`, {
    hint: `choose with --container: ${known.join(", ")}`,
  });
}

interface Picked {
  /** The namespace's services. */
  readonly all: readonly Service[];
  readonly workload: FoundWorkload;
  /** Set when only this service's ports were meant. */
  readonly service: string | undefined;
}

/** The workload that a name means, its own or that of a service; both are asked for at once. */
export async function pickWorkload(kube: Kube, query: InterceptQuery, signal: AbortSignal): Promise<Picked> {
  const { namespace } = query;
  const naming = pickNamed(kube, query, signal);
  naming.catch(() => undefined); // told below, unless the services say more
  const all = (await kube.list(services, { namespace }, signal)).items;
  const service = pickService(query, all);
  const named = await naming;
  if (service === undefined) {
    if (named === undefined) throw await whyMissing(kube, query.name, namespace, signal);
    return { all, workload: named, service: undefined };
  }
  if (named !== undefined && selects(service, named.object)) return { all, workload: named, service: nameOf(service) };
  refuseService(service);
  if (query.workload !== undefined && named !== undefined) throw notSelected(service, named);
  const workload = await behindService(kube, service, namespace, signal);
  if (named !== undefined) throw namesDiffer(query.name, workload, named);
  return { all, workload, service: nameOf(service) };
}

/** The workload that is meant by name; one asked for by --workload must exist. */
async function pickNamed(kube: Kube, query: InterceptQuery, signal: AbortSignal): Promise<FoundWorkload | undefined> {
  const wanted = query.workload ?? (query.service === undefined ? query.name : undefined);
  if (wanted === undefined) return undefined;
  const named = await findByName(kube, query, wanted, signal);
  if (query.workload === undefined || named !== undefined) return named;
  throw await whyMissing(kube, query.workload, query.namespace, signal);
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

/** A workload by its name alone; throws when there is none, or several. */
export async function resolveName(
  kube: Kube,
  query: Pick<InterceptQuery, "namespace" | "kind" | "name">,
  signal: AbortSignal,
): Promise<FoundWorkload> {
  const found = await findByName(kube, query, query.name, signal);
  if (found === undefined) throw await whyMissing(kube, query.name, query.namespace, signal);
  return found;
}

/** Undefined when none of any kind has the name; throws when several have. */
export async function findByName(
  kube: Kube,
  { namespace, kind }: Pick<InterceptQuery, "namespace" | "kind">,
  name: string,
  signal: AbortSignal,
): Promise<FoundWorkload | undefined> {
  if (kind !== undefined) return await findWorkload(kube, { kind, namespace, name }, signal);
  const look = (kinds: readonly WorkloadKind[]): Promise<readonly (FoundWorkload | AppError | undefined)[]> =>
    Promise.all(kinds.map((item) => settled(findWorkload(kube, { kind: item, namespace, name }, signal))));
  const first = await look(templatedKinds);
  const [only, ...others] = running(first.filter(isFound));
  if (only !== undefined && others.length > 0) throw severalKinds(name, [only, ...others]);
  if (only !== undefined) return only;
  const second = (await look(otherKinds)).find(isFound);
  if (second !== undefined) return second;
  // It may be of a kind that this user may not read: said of the usual ones only, as Roles rarely name the others.
  const refused = first.find((item, index) => item instanceof AppError && usualKinds.has(templatedKinds[index]));
  if (refused instanceof AppError) throw refused;
  return undefined;
}

const usualKinds = new Set<WorkloadKind | undefined>(["Deployment", "StatefulSet", "ReplicaSet"]);

function isFound(item: FoundWorkload | AppError | undefined): item is FoundWorkload {
  return item !== undefined && !(item instanceof AppError);
}

/** Those that have pods; all, when none has: it is then said why not. */
function running(found: readonly FoundWorkload[]): readonly FoundWorkload[] {
  const alive = found.filter((item) => item.object.spec.replicas !== 0 && whyEnded(item) === undefined);
  return alive.length > 0 ? alive : found;
}

function severalKinds(name: string, found: readonly FoundWorkload[]): AppError {
  const choices = found.map((item) => `${item.kind.toLowerCase()}/${name}`);
  return new AppError("ambiguous", `${JSON.stringify(name)} is ${names(found.map(describeWorkload))}`, {
    hint: `choose one: ${names(choices)}`,
  });
}

async function behindService(
  kube: Kube,
  service: Service,
  namespace: string,
  signal: AbortSignal,
): Promise<FoundWorkload> {
  const listed = async (kinds: readonly WorkloadKind[]): Promise<readonly FoundWorkload[]> =>
    running((await listWorkloads(kube, namespace, signal, kinds)).filter((item) => selects(service, item.object)));
  const templated = await listed(templatedKinds);
  const candidates = templated.length > 0 ? templated : await listed(otherKinds);
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
    `service ${nameOf(service)} in namespace ${namespace} leads to ${describeOwner(pod)}, which could not be read`,
    { hint: "choose the workload with --workload KIND/NAME" },
  );
}

function describeOwner(pod: Pod): string {
  return ownerOf(pod) ?? `pod ${pod.metadata.name ?? ""}`;
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
  const { spec, status } = workload.object;
  const what = describeWorkload(workload);
  const unfit = whyPodUnfit(spec.template.spec);
  if (unfit !== undefined) throw new AppError("not_interceptable", `${what} ${unfit.why}`, { hint: unfit.hint });
  const ended = whyEnded(workload);
  if (ended !== undefined) {
    throw new AppError("not_interceptable", `${what} in namespace ${workload.namespace} ${ended}: it has no pods`, {
      hint: "start it again",
    });
  }
  if (status?.desiredNumberScheduled === 0) {
    throw new AppError(
      "not_interceptable",
      `${what} in namespace ${workload.namespace} runs on no node: it has no pods`,
      { hint: "its nodeSelector, affinity and tolerations choose the nodes" },
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

/** Why no agent can be in such pods, and the way out; undefined when one can. */
export function whyPodUnfit(pod: PodSpec): { readonly why: string; readonly hint: string } | undefined {
  if (pod.hostNetwork === true) {
    return {
      why: "uses the node's network (hostNetwork), where an agent's ports and a redirect would be the node's own",
      hint: "run it without hostNetwork, or intercept a workload that calls it",
    };
  }
  if (pod.os?.name === "windows" || pod.nodeSelector?.["kubernetes.io/os"] === "windows") {
    return { why: "runs on Windows nodes, expected Linux", hint: "intercept a workload that runs on Linux nodes" };
  }
  return undefined;
}

async function whyMissing(kube: Kube, name: string, namespace: string, signal: AbortSignal): Promise<AppError> {
  const pod = await settled(kube.find(pods, { namespace, name }, signal));
  const owner = pod === undefined || pod instanceof AppError ? undefined : ownerOf(pod);
  if (owner !== undefined) {
    return new AppError("not_interceptable", `pod ${name} in namespace ${namespace} belongs to ${owner}`, {
      hint: `intercept the workload: all of its pods are taken; see \`telepresence list -n ${namespace}\``,
    });
  }
  return new AppError(
    "workload_not_found",
    `no service and no workload ${JSON.stringify(name)} in namespace ${namespace}`,
    { hint: `see \`telepresence list -n ${namespace}\`` },
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

function nameOf(object: KubeObject): string {
  return object.metadata.name ?? "";
}

function names(items: readonly string[]): string {
  return items.length <= 20 ? items.join(", ") : `${items.slice(0, 20).join(", ")} and ${items.length - 20} more`;
}
