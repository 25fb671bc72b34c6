// The namespaces whose `service.namespace` names are ours: the mapped ones if the user chose, otherwise all that may be
// listed, followed by a watch; a user who may not list them has the connection's own.
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube } from "#kube/client.ts";
import { LiveSet } from "#kube/live-set.ts";
import { namespaces, type KubeObject } from "#kube/objects.ts";
import { watch } from "#kube/watch.ts";

export interface NamespaceOptions {
  readonly kube: Kube;
  readonly mapped: readonly string[];
  /** The connection's and the manager's; always among them. */
  readonly own: readonly string[];
  readonly onChange: (names: readonly string[]) => void;
  readonly scope: Scope;
  readonly log: Logger;
}

/** Resolves with the first set; later ones go to `onChange`. */
export async function followNamespaces(options: NamespaceOptions): Promise<readonly string[]> {
  const { kube, mapped, own, scope, log } = options;
  if (mapped.length > 0) return unique([...mapped, ...own]);
  try {
    const { items } = await kube.list(namespaces, {}, scope.signal);
    scope.background("namespace watch", keepWatching(options));
    return unique([...namesOf(items), ...own]);
  } catch (error) {
    if (!isAppError(error, "forbidden")) throw error;
    log.info("namespaces may not be listed, names of the connection's own are resolved", { own });
    return unique(own);
  }
}

async function keepWatching({ kube, own, onChange, scope, log }: NamespaceOptions): Promise<void> {
  const live = new LiveSet<KubeObject>();
  try {
    for await (const event of watch(kube, namespaces, {}, scope.signal)) {
      live.apply(event);
      onChange(unique([...namesOf(live.items), ...own]));
    }
  } catch (error) {
    // Trap 56: listing allowed but watching forbidden; the first set stays.
    if (!scope.signal.aborted) log.info("namespaces may not be watched", { error: String(error) });
  }
}

function namesOf(items: readonly KubeObject[]): readonly string[] {
  return items.map((item) => item.metadata.name ?? "").filter((name) => name !== "");
}

function unique(names: readonly string[]): readonly string[] {
  return [...new Set(names)];
}
