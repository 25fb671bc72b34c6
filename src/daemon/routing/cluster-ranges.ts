// The cluster's service and pod ranges, found at `connect` and looked for again while connected: a node that joins
// brings a range, and an answer with an address outside of all ranges shows that one is missing.
// Invariant: ranges only grow within a session, so that no route goes away under a connection.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeNode } from "#kube/objects.ts";
import { discoverSubnets, mergeSubnets, nodeSubnets, type ClusterSubnets } from "#kube/subnets.ts";
import { formatPrefix, parsePrefix } from "#packet/address.ts";

export interface Ranges {
  readonly services: readonly string[];
  readonly pods: readonly string[];
  /** False when some were guessed from what is visible: answered addresses then get routes of their own. */
  readonly complete: boolean;
}

export interface ClusterRangesOptions {
  readonly kube: Kube;
  /** Namespaces that are looked into where the whole cluster may not be listed. */
  readonly visible: readonly string[];
  /** What the manager's pod shows. */
  readonly podIps: readonly string[];
  readonly apiServiceHost: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: where nothing tells of changes. It may list every node of a cluster. */
const lookMs = 300_000;
/** chosen: between two looks for which there was a reason. */
const pauseMs = 10_000;
/** chosen: addresses that are looked for, each once; then the clock alone is a reason. */
const maxKnown = 1000;

export class ClusterRanges {
  readonly #options: ClusterRangesOptions;
  #current: Ranges;
  #onChange: ((ranges: Ranges) => Promise<void>) | undefined;
  #looking: Promise<void> | undefined;
  #lastLookMs: number;
  #lastFoundMs: number;
  /** Of the nodes, as they were last seen. */
  #nodeCidrs: string | undefined;
  readonly #lookedFor = new Set<string>();

  private constructor(options: ClusterRangesOptions, found: Ranges) {
    this.#options = options;
    this.#current = found;
    this.#lastLookMs = options.clock.now();
    this.#lastFoundMs = this.#lastLookMs;
  }

  static async discover(options: ClusterRangesOptions, signal: AbortSignal): Promise<ClusterRanges> {
    return new ClusterRanges(options, await find(options, signal));
  }

  get current(): Ranges {
    return this.#current;
  }

  /** How long ago the cluster last said so. */
  get ageMs(): number {
    return this.#options.clock.now() - this.#lastFoundMs;
  }

  /** From now on each larger set goes there, until the scope ends; `known` is the one that it has. */
  follow(known: Ranges, onChange: (ranges: Ranges) => Promise<void>, scope: Scope): void {
    this.#onChange = onChange;
    const { clock } = this.#options;
    if (known !== this.#current) scope.background("cluster's ranges", onChange(this.#current));
    scope.use(clock.every(lookMs, () => scope.background("cluster's ranges", this.#look(scope.signal))));
  }

  /** The nodes, whenever one of them changes. */
  async onNodes(nodes: readonly KubeNode[], signal: AbortSignal): Promise<void> {
    const cidrs = mergeSubnets(nodeSubnets(nodes)).join();
    const isNews = this.#nodeCidrs !== undefined && cidrs !== this.#nodeCidrs;
    this.#nodeCidrs = cidrs;
    if (isNews) await this.#look(signal);
  }

  /** Looks again because of addresses that no range holds; each is a reason once. */
  async lookFor(addresses: readonly string[], signal: AbortSignal): Promise<void> {
    const room = maxKnown - this.#lookedFor.size;
    const unknown = addresses.filter((address) => !this.#lookedFor.has(address)).slice(0, room);
    if (unknown.length === 0 || this.#options.clock.now() - this.#lastLookMs < pauseMs) return;
    for (const address of unknown) this.#lookedFor.add(address);
    await this.#look(signal);
  }

  /** One look at a time. What cannot be found out leaves what is known. */
  async #look(signal: AbortSignal): Promise<void> {
    this.#looking ??= this.#lookOnce(signal).finally(() => {
      this.#looking = undefined;
    });
    await this.#looking;
  }

  async #lookOnce(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    this.#lastLookMs = clock.now();
    try {
      const found = await find(this.#options, signal);
      this.#lastFoundMs = clock.now();
      const before = this.#current;
      const services = mergeSubnets([...before.services, ...found.services]);
      const pods = mergeSubnets([...before.pods, ...found.pods]);
      if (services.join() === before.services.join() && pods.join() === before.pods.join()) return;
      this.#current = { services, pods, complete: before.complete && found.complete };
      log.info("the cluster's ranges have grown", { services, pods });
      await this.#onChange?.(this.#current);
    } catch (error) {
      if (!signal.aborted) log.warn("the cluster's ranges could not be followed", { error: String(error) });
    }
  }
}

async function find(options: ClusterRangesOptions, signal: AbortSignal): Promise<Ranges> {
  const { kube, visible, podIps, apiServiceHost } = options;
  const subnets = await discoverSubnets(kube, visible, signal);
  const complete = isComplete(subnets);
  // Where ranges had to be guessed: what the manager's own pod shows, as wide as clusters commonly are.
  const guessedPods = complete ? [] : podIps.flatMap((address) => around(address, 24, 64));
  const guessedServices = complete || apiServiceHost === undefined ? [] : around(apiServiceHost, 16, 112);
  return {
    services: mergeSubnets([...subnets.serviceSubnets, ...guessedServices]),
    pods: mergeSubnets([...subnets.podSubnets, ...guessedPods]),
    complete,
  };
}

function isComplete({ serviceSource, podSource }: ClusterSubnets): boolean {
  return serviceSource !== "visible services" && podSource === "nodes";
}

function around(address: string, bits4: number, bits6: number): readonly string[] {
  const prefix = parsePrefix(`${address}/${address.includes(":") ? bits6 : bits4}`);
  return prefix === undefined ? [] : [formatPrefix(prefix)];
}
