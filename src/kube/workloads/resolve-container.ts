// From a name to a container whose environment and files are wanted. No port matters, so pods that nothing leads to, and
// those on the node's network, will do.
import type { Kube } from "#kube/client.ts";
import type { PodTemplate } from "#kube/objects.ts";
import { findByName, pickWorkload, requireContainer, type ResolveOptions } from "./resolve-workload.ts";
import type { FoundWorkload, WorkloadKind } from "./workloads.ts";

export interface ContainerQuery {
  /** A workload, or a service of it. */
  readonly name: string;
  readonly namespace: string;
  /** Of the workload, where the user has said it. */
  readonly kind?: WorkloadKind | undefined;
  readonly container?: string | undefined;
}

export interface ResolvedContainer {
  readonly workload: FoundWorkload;
  readonly containerName: string;
  /** Others that the workload has, when nobody said which one is meant. */
  readonly others: readonly string[];
}

export async function resolveContainer(
  kube: Kube,
  query: ContainerQuery,
  { signal, withoutAgent }: ResolveOptions,
): Promise<ResolvedContainer> {
  const { container, name } = query;
  const found = (await findByName(kube, query, name, signal)) ?? (await behindService(kube, query, signal));
  const object = withoutAgent(found.object);
  const workload = { ...found, object };
  const { template } = object.spec;
  const known = template.spec.containers.map((item) => item.name);
  const containerName = container ?? markedContainer(template) ?? known[0] ?? "";
  requireContainer(workload, known, containerName);
  const others = container === undefined ? known.filter((item) => item !== containerName) : [];
  return { workload, containerName, others };
}

/** Throws what there is of that name, where it is neither a workload nor a service of one. */
async function behindService(
  kube: Kube,
  { namespace, name, kind }: ContainerQuery,
  signal: AbortSignal,
): Promise<FoundWorkload> {
  const wanted = { namespace, name, kind, ports: [], ...(kind === undefined ? {} : { workload: name }) };
  return (await pickWorkload(kube, wanted, signal)).workload;
}

/** The one that kubectl takes by the template's annotation. */
export function markedContainer({ metadata, spec }: PodTemplate): string | undefined {
  const marked = metadata?.annotations?.["kubectl.kubernetes.io/default-container"];
  return spec.containers.some(({ name }) => name === marked) ? marked : undefined;
}
