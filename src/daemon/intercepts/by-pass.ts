// What the cluster's API shows about callers that do not reach an agent: who takes a port of a pod before it, and which
// pods a service leads to. Asked only when a canary went astray, or must not.
import { AppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import { findMesh, findPlugin } from "#kube/mesh.ts";
import { orUndefined } from "#kube/refusals.ts";
import { formatSelector, nodes, pods, services } from "#kube/objects.ts";
import type { AgentPort } from "#wire/agent-api.ts";

/** Half a sentence: who it is, and what to do about it. */
export async function explainByPass(
  kube: Kube,
  of: { readonly namespace: string; readonly podName: string; readonly port: AgentPort },
  signal: AbortSignal,
): Promise<string> {
  const { namespace, podName, port } = of;
  const byName = port.takeover === "name";
  // A mesh passes connections on to an agent's own port like to any other of the pod.
  const instead = byName ? [] : ["name the port in the service and use --agent sidecar"];
  const pod = await kube.findListed(pods, { namespace, name: podName }, signal);
  if (pod === undefined) return "the pod is gone";
  const mesh = findMesh(pod);
  if (mesh !== undefined) {
    const { name, evidence, exclude } = mesh;
    const taken = byName ? port.agentPort : port.containerPort;
    const remedy =
      exclude === undefined ? "take the pod out of it" : `annotate the workload's pods with ${exclude}: "${taken}"`;
    return `${name} (${evidence}) takes the port before the agent: ${[remedy, ...instead].join(", or ")}`;
  }
  const { nodeName } = pod.spec;
  const plugin = nodeName === undefined ? undefined : await findNodePlugin(kube, nodeName, signal);
  const who = plugin === undefined ? "the node's network" : `the node's network (${plugin})`;
  return [`something in the pod or ${who} takes the port before the agent`, ...instead].join(": ");
}

/** Undefined where nodes may not be read, or nothing is known. */
async function findNodePlugin(kube: Kube, name: string, signal: AbortSignal): Promise<string | undefined> {
  const node = await orUndefined(kube.get(nodes, { name }, signal));
  return node && findPlugin(node);
}

/** Also those that are on their way out: a proxy may still know them. */
export async function findServicePods(
  kube: Kube,
  { namespace, service }: { readonly namespace: string; readonly service: string },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const found = await kube.findListed(services, { namespace, name: service }, signal);
  const matchLabels = found?.spec.selector ?? {};
  if (Object.keys(matchLabels).length === 0) {
    throw new AppError("unsupported", `service ${service} has no selector, so its pods are not known`);
  }
  const { items } = await kube.list(pods, { namespace, labelSelector: formatSelector({ matchLabels }) }, signal);
  const ended = new Set(["Succeeded", "Failed"]);
  return items.filter(({ status }) => !ended.has(status?.phase ?? "")).map(({ metadata }) => metadata.uid ?? "");
}
