// The names of a kind of object, listed once and then followed by a watch: namespaces, whose `service.namespace` names
// are ours, and the services of the connection's namespace, whose `pod.service` names are.
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube, ListQuery } from "#kube/client.ts";
import { LiveSet } from "#kube/live-set.ts";
import type { KubeObject, Resource } from "#kube/objects.ts";
import { watch } from "#kube/watch.ts";

export interface NamesOptions {
  readonly kube: Kube;
  readonly kind: Resource<KubeObject>;
  readonly query: ListQuery;
  readonly onChange: (names: readonly string[]) => void;
  readonly scope: Scope;
  readonly log: Logger;
}

/** Resolves with the first set, empty when the user may not list them; later ones go to `onChange`. */
export async function followNames(options: NamesOptions): Promise<readonly string[]> {
  const { kube, kind, query, scope, log } = options;
  try {
    const { items } = await kube.list(kind, query, scope.signal);
    scope.background(`${kind.plural} watch`, keepWatching(options));
    return namesOf(items);
  } catch (error) {
    if (!isAppError(error, "forbidden")) throw error;
    log.info("names may not be listed", { kind: kind.plural });
    return [];
  }
}

async function keepWatching({ kube, kind, query, onChange, scope, log }: NamesOptions): Promise<void> {
  const live = new LiveSet<KubeObject>();
  try {
    for await (const event of watch(kube, kind, query, scope.signal)) {
      live.apply(event);
      onChange(namesOf(live.items));
    }
  } catch (error) {
    // Trap 56: listing allowed but watching forbidden; the first set stays.
    if (!scope.signal.aborted) log.info("names may not be watched", { kind: kind.plural, error: String(error) });
  }
}

function namesOf(items: readonly KubeObject[]): readonly string[] {
  return items.map((item) => item.metadata.name ?? "").filter((name) => name !== "");
}
