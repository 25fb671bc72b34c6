// How requests come into the cluster, as far as the user may see it: what is forbidden, or takes long, is not looked at.
import { deadline } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import { planRemoval } from "#installer/agent.ts";
import type { Kube } from "#kube/client.ts";
import { deployments, ingresses, namespaces, services, type KubeObject, type Resource } from "#kube/objects.ts";
import { orUndefined } from "#kube/refusals.ts";
import { resolveWorkload, type InterceptQuery } from "#kube/workloads/resolve-workload.ts";
import type { FoundIngress } from "#wire/preview.ts";

import { chooseIngress } from "./ingress-choice.ts";

/** chosen: a person waits for a question. */
const lookMs = 5000;

interface Place {
  readonly kube: Kube;
  readonly managerNamespace: string;
}

export async function findIngress(
  { kube, managerNamespace }: Place,
  query: InterceptQuery,
  signal: AbortSignal,
): Promise<FoundIngress[]> {
  const { namespace } = query;
  using limit = deadline(kube.clock, lookMs, "looking for the cluster's ingress", signal);
  const listed = <T extends KubeObject>(kind: Resource<T>, inNamespace?: string): Promise<readonly T[] | undefined> =>
    kube.list(kind, { namespace: inNamespace }, limit.signal).then(
      ({ items }) => items,
      () => undefined, // the questions are asked without it
    );
  const [all, near, leading, resolved] = await Promise.all([
    listed(services),
    listed(services, namespace),
    listed(ingresses, namespace),
    // What is wrong with it is said when it is intercepted.
    resolveWorkload(kube, query, { signal: limit.signal, withoutAgent: planRemoval }).catch(() => undefined),
  ]);
  signal.throwIfAborted();
  const own = (resolved?.ports ?? []).flatMap(({ serviceName: name, servicePort: port, protocol }) =>
    name === undefined || port === undefined || protocol !== "tcp" ? [] : [{ name, port }],
  );
  return chooseIngress({ services: all ?? near ?? [], ingresses: leading ?? [], own, namespace, managerNamespace });
}

/** What a cloud server knows the cluster by: the same for everybody who may see it, whatever they call it. */
export async function findClusterId({ kube, managerNamespace }: Place, signal: AbortSignal): Promise<string> {
  const system = await orUndefined(kube.get(namespaces, { name: "kube-system" }, signal));
  if (system?.metadata.uid !== undefined) return system.metadata.uid;
  const ref = { namespace: managerNamespace, name: "traffic-manager" };
  const manager = await orUndefined(kube.get(deployments, ref, signal));
  if (manager?.metadata.uid !== undefined) return manager.metadata.uid;
  throw new AppError(
    "forbidden",
    "the cluster cannot be told from others without reading a namespace or a deployment",
    {
      hint: `ask for the right to get the namespace kube-system, or deployments in namespace ${managerNamespace}`,
    },
  );
}
