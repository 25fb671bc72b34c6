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
  readonly scope: Scope;
  readonly log: Logger;
}

export class ClusterNames {
  #names: readonly string[];
  #onChange: ((names: readonly string[]) => void) | undefined;

  /** Names that stay as they are, until a watch says otherwise. */
  constructor(names: readonly string[]) {
    this.#names = names;
  }

  /** Resolves with the first set, empty when the user may not list them. */
  static async follow(options: NamesOptions): Promise<ClusterNames> {
    const { kube, kind, query, scope, log } = options;
    try {
      const { items } = await kube.list(kind, query, scope.signal);
      const names = new ClusterNames(namesOf(items));
      scope.background(`${kind.plural} watch`, names.#keepWatching(options));
      return names;
    } catch (error) {
      if (!isAppError(error, "forbidden")) throw error;
      log.info("names may not be listed", { kind: kind.plural });
      return new ClusterNames([]);
    }
  }

  get current(): readonly string[] {
    return this.#names;
  }
  /** From now on each set goes there; `known` is the one that it has, which may be older than the current. */
  deliver(known: readonly string[], onChange: (names: readonly string[]) => void): void {
    this.#onChange = onChange;
    if (known !== this.#names) onChange(this.#names);
  }

  async #keepWatching({ kube, kind, query, scope, log }: NamesOptions): Promise<void> {
    const live = new LiveSet<KubeObject>();
    try {
      for await (const event of watch(kube, kind, query, scope.signal)) {
        live.apply(event);
        this.#names = namesOf(live.items);
        this.#onChange?.(this.#names);
      }
    } catch (error) {
      // Trap 56: listing allowed but watching forbidden; the first set stays.
      if (!scope.signal.aborted) log.info("names may not be watched", { kind: kind.plural, error: String(error) });
    }
  }
}

function namesOf(items: readonly KubeObject[]): readonly string[] {
  return items.map((item) => item.metadata.name ?? "").filter((name) => name !== "");
}
