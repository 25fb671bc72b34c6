// The names of a kind of object, listed once and then followed by a watch: namespaces, whose `service.namespace` names
// are ours, and the services of the connection's namespace, whose `pod.service` names are. Of services the addresses too:
// the cluster's own resolver goes on for up to 30 s saying what was, or that there is none.
import { isIP } from "node:net";
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube, ListQuery } from "#kube/client.ts";
import { LiveSet } from "#kube/live-set.ts";
import type { KubeObject, Resource, Service } from "#kube/objects.ts";
import { watch } from "#kube/watch.ts";

export interface NamesOptions {
  readonly kube: Kube;
  readonly kind: Resource<KubeObject>;
  readonly query: ListQuery;
  readonly scope: Scope;
  readonly log: Logger;
}

export interface KnownNames {
  readonly names: readonly string[];
  /** Of services that have addresses of their own, and only while they are followed. */
  readonly addresses: Readonly<Record<string, readonly string[]>>;
}

export class ClusterNames {
  #known: KnownNames;
  #onChange: ((known: KnownNames) => void) | undefined;

  /** Names that stay as they are, until a watch says otherwise. */
  constructor(names: readonly string[]) {
    this.#known = { names, addresses: {} };
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

  get current(): KnownNames {
    return this.#known;
  }
  /** From now on each set goes there; `known` is the one that it has, which may be older than the current. */
  deliver(known: KnownNames, onChange: (known: KnownNames) => void): void {
    this.#onChange = onChange;
    if (known !== this.#known) onChange(this.#known);
  }

  async #keepWatching({ kube, kind, query, scope, log }: NamesOptions): Promise<void> {
    const live = new LiveSet<KubeObject>();
    try {
      for await (const event of watch(kube, kind, query, scope.signal)) {
        live.apply(event);
        this.#change({ names: namesOf(live.items), addresses: addressesOf(live.items) });
      }
    } catch (error) {
      if (scope.signal.aborted) return;
      // The user may do so no more: names stay, addresses would grow old.
      log.info("names may not be watched", { kind: kind.plural, error: String(error) });
      this.#change({ names: this.#known.names, addresses: {} });
    }
  }

  /** Objects change in many ways that are nothing to a name. */
  #change(known: KnownNames): void {
    if (JSON.stringify(known) === JSON.stringify(this.#known)) return;
    this.#known = known;
    this.#onChange?.(known);
  }
}

function namesOf(items: readonly KubeObject[]): readonly string[] {
  return items.map((item) => item.metadata.name ?? "").filter((name) => name !== "");
}

/** What the cluster's resolver says of a service as long as it stands; nothing of headless ones and of mere aliases. */
function addressesOf(items: readonly KubeObject[]): KnownNames["addresses"] {
  const found = items.flatMap(({ metadata: { name = "" }, ...rest }) => {
    const { clusterIP = "", clusterIPs = [clusterIP], type } = (rest as Partial<Service>).spec ?? {};
    const addresses = clusterIPs.filter((address) => isIP(address) !== 0);
    return addresses.length === 0 || type === "ExternalName" ? [] : [[name, addresses] as const];
  });
  return Object.fromEntries(found);
}
