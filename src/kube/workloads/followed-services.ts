// The services of namespaces in which pods are waited for that want to know theirs at once: a pod that has just been
// made is on its way to its node already, and a list would be a round trip that it does not wait for.
import type { Kube } from "#kube/client.ts";
import { watchAll } from "#kube/live-set.ts";
import { services, type Service } from "#kube/objects.ts";

interface Follow {
  readonly namespace: string;
  /** Undefined before the watch has told. */
  known: readonly Service[] | undefined;
}

export class FollowedServices {
  readonly #kube: Kube;
  readonly #follows = new Set<Follow>();

  constructor(kube: Kube) {
    this.#kube = kube;
  }

  /** Knows the namespace's services until the signal aborts. Rejects where they cannot be watched: then they are listed. */
  async follow(namespace: string, signal: AbortSignal): Promise<void> {
    const follow: Follow = { namespace, known: undefined };
    this.#follows.add(follow);
    try {
      const onItems = (items: readonly Service[]): void => void (follow.known = items);
      await watchAll(this.#kube, { kind: services, query: { namespace } }, onItems, signal);
    } finally {
      this.#follows.delete(follow);
    }
  }

  /** Those of the namespace: without asking where it is followed. */
  async in(namespace: string, signal: AbortSignal): Promise<readonly Service[]> {
    const follow = [...this.#follows].find((item) => item.namespace === namespace && item.known !== undefined);
    return follow?.known ?? (await this.#kube.list(services, { namespace }, signal)).items;
  }
}
