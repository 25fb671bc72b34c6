// The nodes' addresses, which the manager must not dial for laptops (DESIGN §6). It has no permission to look them up:
// every laptop that may list nodes keeps them in a ConfigMap, which the manager's pod mounts. Who may not leaves what
// is there.
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Kube } from "#kube/client.ts";
import { LiveSet } from "#kube/live-set.ts";
import type { ConfigMap, KubeNode } from "#kube/objects.ts";
import { configMaps, nodes } from "#kube/objects.ts";
import { isMissingPermission } from "#kube/status.ts";
import { watch } from "#kube/watch.ts";
import { isOurs, managerSelector, nodeListKey, nodeListName } from "./marks.ts";

/** Chosen: each node's report every few minutes is a whole object, and a watch of more brings too many of them. */
const maxFollowed = 500;
const maxConflicts = 3;

/** Addresses for a manager that is being installed. Empty where we may not list nodes either. */
export async function listNodeIps(kube: Kube, signal: AbortSignal): Promise<readonly string[]> {
  try {
    return addressesOf((await kube.list(nodes, {}, signal)).items);
  } catch (error) {
    if (isMissingPermission(error)) return [];
    throw error;
  }
}

export interface NodeListOptions {
  readonly namespace: string;
  /** Hears of the nodes, too, for as long as they are followed. */
  readonly onNodes?: (nodes: readonly KubeNode[]) => void;
  readonly log: Logger;
}

/** Keeps the list current until the signal aborts, or as far as the user may. Never rejects. */
export async function keepNodeList(kube: Kube, options: NodeListOptions, signal: AbortSignal): Promise<void> {
  const { namespace, onNodes, log } = options;
  try {
    const texts = (await mayFollow(kube, signal))
      ? follow(kube, onNodes, signal)
      : [(await listNodeIps(kube, signal)).join("\n")];
    let create = true;
    for await (const text of texts) {
      if (text !== "") await write(kube, { namespace, text, create }, signal);
      create = false; // a team mate's uninstall, while we are connected, is to leave nothing behind
    }
  } catch (error) {
    if (!signal.aborted) log.info("the list of nodes is left as it is", { reason: String(error) });
  }
}

/** Where `watch` is missing, a watch would become a list every few seconds. */
async function mayFollow(kube: Kube, signal: AbortSignal): Promise<boolean> {
  return await kube.can({ verb: "watch", group: nodes.group, resource: nodes.plural }, signal);
}

/** The list, now and after each change of it. */
async function* follow(
  kube: Kube,
  onNodes: NodeListOptions["onNodes"],
  signal: AbortSignal,
): AsyncGenerator<string, void, void> {
  const live = new LiveSet<KubeNode>();
  let last: string | undefined;
  for await (const event of watch(kube, nodes, {}, signal)) {
    live.apply(event);
    onNodes?.(live.items);
    const text = addressesOf(live.items).join("\n");
    if (text !== last) yield text;
    last = text;
    if (live.items.length > maxFollowed) return;
  }
}

interface List {
  readonly namespace: string;
  readonly text: string;
  readonly create: boolean;
}

async function write(kube: Kube, list: List, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const found = await kube.find(configMaps, { namespace: list.namespace, name: nodeListName }, signal);
    if (found?.data?.[nodeListKey] === list.text || (found === undefined && !list.create)) return;
    try {
      await put(kube, list, found, signal);
      return;
    } catch (error) {
      if (!isAppError(error, "conflict") || attempt >= maxConflicts) throw error; // another laptop's: look again
    }
  }
}

async function put(kube: Kube, list: List, found: ConfigMap | undefined, signal: AbortSignal): Promise<void> {
  const ref = { namespace: list.namespace, name: nodeListName };
  const data = { [nodeListKey]: list.text };
  if (found === undefined) {
    const metadata = { ...ref, labels: managerSelector };
    await kube.create(configMaps, { apiVersion: "v1", kind: "ConfigMap", metadata, data }, signal);
    return;
  }
  if (!isOurs(found.metadata)) {
    throw new AppError("denied", `ConfigMap ${ref.name} in namespace ${ref.namespace} is not this product's`);
  }
  const { resourceVersion } = found.metadata;
  await kube.patch(configMaps, ref, { metadata: { resourceVersion }, data }, signal);
}

/** With the manager. */
export async function removeNodeList(kube: Kube, namespace: string, signal: AbortSignal): Promise<void> {
  try {
    const found = await kube.find(configMaps, { namespace, name: nodeListName }, signal);
    if (found === undefined || !isOurs(found.metadata)) return;
    await kube.delete(configMaps, { namespace, name: nodeListName, uid: found.metadata.uid }, signal);
  } catch (error) {
    if (!isMissingPermission(error)) throw error; // whoever may not did not make it
  }
}

/** Sorted, so that every laptop writes the same. */
function addressesOf(items: readonly KubeNode[]): readonly string[] {
  const all = items.flatMap((node) => node.status?.addresses ?? []);
  const reachable = all.filter(({ type }) => type === "InternalIP" || type === "ExternalIP");
  return [...new Set(reachable.map(({ address }) => address))].sort();
}
