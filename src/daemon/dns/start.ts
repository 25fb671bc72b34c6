// Builds the DNS hops and ends them.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { DnsAnswer } from "#packet/dns-message.ts";
import { ClusterLookup, type Exchange, type OnAddresses } from "./cluster.ts";
import { Forwarder } from "./forward.ts";
import type { DnsConfig } from "./names.ts";
import { Resolve, type DnsStats } from "./resolve.ts";
import { DnsServer, type DnsAddress, type DnsListenAddress, type IsOwnPort } from "./server.ts";
import type { Upstream } from "./upstream.ts";

export interface DnsOptions {
  /** UDP and TCP on each; port 0 takes a free number, the same for all that ask so. */
  readonly listen: readonly DnsListenAddress[];
  /** The host's own nameservers, in its order. */
  readonly upstreams: readonly Upstream[];
  /** Who gets what these ask us in turn. */
  readonly behind?: readonly Upstream[];
  readonly config: DnsConfig;
  readonly exchange: Exchange;
  readonly onAddresses?: OnAddresses;
  readonly lookupTimeoutMs?: number | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface Dns extends AsyncDisposable {
  readonly addresses: readonly DnsAddress[];
  /** UDP and TCP ports that forwarded queries leave from: the hook must let them pass. */
  readonly upstreamSourcePorts: readonly number[];
  /** What the cluster alone says of a name; undefined where the host's answer is the one that counts. Never rejects. */
  ask(name: string, type: number): Promise<DnsAnswer | undefined>;
  /** What is ours now. */
  readonly config: DnsConfig;
  /** What is ours has changed; forgets earlier answers. */
  change(part: Partial<DnsConfig>): void;
  setUpstreams(upstreams: readonly Upstream[], behind?: readonly Upstream[]): void;
  /** Forgets the cluster's answers: another session, another state of the cluster. */
  flush(): void;
  stats(): DnsStats;
  close(): Promise<void>;
}

export async function startDns(options: DnsOptions): Promise<Dns> {
  const { clock, log, signal, exchange, onAddresses, lookupTimeoutMs } = options;
  const forwarder = await Forwarder.start(clock, options.upstreams);
  forwarder.setUpstreams(options.upstreams, options.behind);
  const cluster = new ClusterLookup({ exchange, onAddresses, lookupTimeoutMs, clock, log, signal });
  const learn = ({ serviceAddresses = {}, namespace, clusterDomain }: DnsConfig): void =>
    cluster.setKnown(serviceAddresses, `.${namespace}.svc.${clusterDomain}`);
  learn(options.config);
  const resolve = new Resolve(options.config, cluster, forwarder);
  const isOwnPort: IsOwnPort = (port, transport) => forwarder.isOwnPort(port, transport);
  const server = new DnsServer((message, transport) => resolve.answer(message, transport), isOwnPort, log);
  try {
    await server.listen(options.listen);
  } catch (error) {
    await forwarder.close();
    throw error;
  }
  const addresses = server.addresses;
  let { config } = options;
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> =>
    (closing ??= Promise.all([server.close(), forwarder.close()]).then(() => undefined));
  return {
    addresses,
    upstreamSourcePorts: forwarder.sourcePorts,
    ask: (name, type) => resolve.ask(name, type),
    get config() {
      return config;
    },
    change: (part) => {
      config = { ...config, ...part };
      resolve.setConfig(config);
      learn(config);
      cluster.flush();
    },
    setUpstreams: (upstreams, behind) => forwarder.setUpstreams(upstreams, behind),
    flush: () => cluster.flush(),
    stats: () => ({ ...resolve.stats }),
    close,
    [Symbol.asyncDispose]: close,
  };
}
