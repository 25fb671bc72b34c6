// NetworkPolicies that would cut an agent off: read with the user's credentials before anything is changed, and named.
// A warning, never a refusal: whether the cluster enforces them at all, only its network plugin knows.
// Invariant: what may not be read says nothing, and only what is certain is said.
import { planTakeover } from "#installer/port-takeover.ts";
import { managerSelector } from "#installer/marks.ts";
import type { Kube } from "#kube/client.ts";
import {
  findCut,
  findLost,
  networkPolicies,
  type Labels,
  type NetworkPolicy,
  type PolicyFlow,
  type PolicyPod,
} from "#kube/network-policy.ts";
import { namespaces, type Pod, type PodSpec, type Service } from "#kube/objects.ts";
import { orUndefined } from "#kube/refusals.ts";
import { describeWorkload } from "#kube/workloads/workloads.ts";
import { managerAgentPort, type WorkloadRef } from "#wire/manager-api.ts";

/** Who is to be reached by agents. */
export interface ManagerPlace {
  readonly namespace: string;
  /** Undefined when its pod is not known. */
  readonly pod: Pod | undefined;
}

/** The workload's pods as they are without an agent. */
export interface JudgedWorkload {
  readonly workload: WorkloadRef;
  readonly labels: Labels;
  readonly spec: PodSpec;
  /** Those that select them. */
  readonly services: readonly Service[];
}

export class PolicyCheck {
  readonly #policies: readonly NetworkPolicy[];
  readonly #of: JudgedWorkload;
  readonly #from: PolicyPod;
  readonly #manager: PolicyPod;

  private constructor(policies: readonly NetworkPolicy[], of: JudgedWorkload, from: PolicyPod, manager: PolicyPod) {
    this.#policies = policies;
    this.#of = of;
    this.#from = from;
    this.#manager = manager;
  }

  static async read(kube: Kube, of: JudgedWorkload, manager: ManagerPlace, signal: AbortSignal): Promise<PolicyCheck> {
    const { namespace } = of.workload;
    const places = [...new Set([namespace, manager.namespace])];
    const lists = await Promise.all(places.map((place) => listPolicies(kube, place, signal)));
    const policies = lists.flat();
    const labels = async (name: string): Promise<Labels | undefined> =>
      policies.length === 0 ? undefined : await readLabels(kube, name, signal);
    const [own, managers] = await Promise.all([labels(namespace), labels(manager.namespace)]);
    const { pod } = manager;
    return new PolicyCheck(
      policies,
      of,
      { namespace, namespaceLabels: own, labels: of.labels, ips: [], namedPorts: namedPorts(of.spec) },
      {
        namespace: manager.namespace,
        namespaceLabels: managers,
        labels: pod?.metadata.labels ?? managerSelector,
        ips: pod?.status?.podIPs?.map(({ ip }) => ip) ?? [],
        namedPorts: pod === undefined ? [] : namedPorts(pod.spec),
      },
    );
  }

  /** What keeps the agents from the manager, a sentence each. */
  get cuts(): readonly string[] {
    const flow: PolicyFlow = { from: this.#from, to: this.#manager, port: managerAgentPort, protocol: "TCP" };
    const what = describeWorkload(this.#of.workload);
    const there = `port ${managerAgentPort} of the traffic-manager in namespace ${this.#manager.namespace}`;
    const egress = findCut(this.#policies, "Egress", flow);
    const ingress = findCut(this.#policies, "Ingress", flow);
    const out = `no connection from the pods of ${what} out to ${there}, which its agent needs: add an egress rule for it`;
    const into = `no connection from the pods of ${what} in namespace ${this.#from.namespace} in to ${there}, which its agent needs: add an ingress rule for it`;
    return [
      ...(egress.length === 0 ? [] : [`${describePolicies(egress, "lets", "let")} ${out}`]),
      ...(ingress.length === 0 ? [] : [`${describePolicies(ingress, "lets", "let")} ${into}`]),
    ];
  }

  /** Whose callers a sidecar would lose that takes ports by their names, since it listens on other numbers. */
  get lost(): readonly string[] {
    const { workload, spec, services } = this.#of;
    const what = describeWorkload(workload);
    const taken = planTakeover(spec, { services, asked: [], what, by: "names" }).ports.filter(
      ({ takeover }) => takeover === "name",
    );
    return taken.flatMap(({ containerPort: port, agentPort: instead, portName }) => {
      const lost = findLost(this.#policies, this.#from, { port, instead });
      if (lost.length === 0) return [];
      const who = describePolicies(lost, "admits", "admit");
      return [
        `${who} callers to port ${port} of ${what} by its number, and with a sidecar they come to port ${instead}: admit the port by its name (${portName ?? ""}), or ${instead} as well`,
      ];
    });
  }
}

async function listPolicies(kube: Kube, namespace: string, signal: AbortSignal): Promise<readonly NetworkPolicy[]> {
  return (await orUndefined(kube.list(networkPolicies, { namespace }, signal)))?.items ?? [];
}

async function readLabels(kube: Kube, name: string, signal: AbortSignal): Promise<Labels | undefined> {
  const namespace = await orUndefined(kube.get(namespaces, { name }, signal));
  return namespace && (namespace.metadata.labels ?? {});
}

function namedPorts(spec: PodSpec): PolicyPod["namedPorts"] {
  return [...spec.containers, ...(spec.initContainers ?? [])].flatMap(({ ports = [] }) =>
    ports.flatMap(({ name, containerPort: port, protocol = "TCP" }) =>
      name === undefined ? [] : [{ name, port, protocol }],
    ),
  );
}

function describePolicies(policies: readonly NetworkPolicy[], one: string, many: string): string {
  const names = policies.map(({ metadata }) => metadata.name ?? "");
  const where = `in namespace ${policies[0]?.metadata.namespace ?? ""}`;
  return names.length === 1
    ? `NetworkPolicy ${names[0] ?? ""} ${where} ${one}`
    : `NetworkPolicies ${names.slice(0, -1).join(", ")} and ${names.at(-1) ?? ""} ${where} ${many}`;
}
