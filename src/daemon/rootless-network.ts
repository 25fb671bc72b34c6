// The cluster's network without a device, and so without root: proxies on the loopback for programs that use one, and the way
// for programs in networks of their own. What
// is the cluster's and what is not is decided as for a device, only here and not by the laptop's routes.
import { AppError } from "#base/error.ts";
import { Scope } from "#base/scope.ts";
import type { HostResolver } from "#host/resolver.ts";
import { formatAddress, parsePrefix, prefixContains, type Prefix } from "#packet/address.ts";
import { addressOf, dnsRcodes, dnsTypes } from "#packet/dns-message.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { Connection, ConnectOptions, DaemonStatus } from "#wire/control-api.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { Ranges } from "#daemon/routing/cluster-ranges.ts";
import { DeviceRoutes } from "#daemon/routing/device-routes.ts";
import type { ChangingNames } from "./dns/names.ts";
import { startDns, type Dns } from "./dns/start.ts";
import { upstreamsOf } from "./dns/upstream.ts";
import type { LaptopNetworkOptions } from "./laptop-network.ts";
import { StreamOpener } from "./outbound/open-stream.ts";
import type { Ways } from "#daemon/private-networks/private-network.ts";
import { openHttpProxy } from "./proxy/http-proxy.ts";
import { loopback } from "./proxy/listener.ts";
import { Reach } from "./proxy/reach.ts";
import { openSocks } from "./proxy/socks.ts";
import type { SessionNetwork } from "./session.ts";

export interface RootlessNetworkOptions extends Omit<LaptopNetworkOptions, "helper" | "reached"> {
  readonly proxy: NonNullable<ConnectOptions["rootless"]>["proxy"] | undefined;
}

export class RootlessNetwork implements SessionNetwork {
  /** Nothing of it can be lost but this process. */
  readonly lost = new Promise<AppError>(() => undefined);
  readonly warnings: readonly string[] = [];
  readonly deviceName = undefined;
  proxy: Connection["proxy"];
  readonly #options: RootlessNetworkOptions;
  readonly #scope: Scope;
  readonly #opener: StreamOpener;
  readonly #routes: DeviceRoutes;
  readonly #reach: Reach;
  /** What a device would have routes for. */
  #cluster: readonly Prefix[] = [];
  #dns: Dns | undefined;

  private constructor(options: RootlessNetworkOptions) {
    this.#options = options;
    this.#scope = new Scope(options.log);
    this.#opener = new StreamOpener(options.clock, options.detours);
    this.#opener.setSession(options.session);
    const { routing, ranges, resolver, lookFor, rangesAgeMs, log } = options;
    this.#reach = new Reach({
      open: (request, signal) => this.#opener.open(request, signal),
      isCluster: (address) => this.#cluster.some((route) => prefixContains(route, address)),
      resolve: (name) => this.#resolve(name),
      clock: options.clock,
    });
    this.#routes = new DeviceRoutes({
      helper: {
        setRoutes: ({ routes }) => {
          this.#cluster = routes.flatMap((route) => parsePrefix(route) ?? []);
          return Promise.resolve();
        },
      },
      // This machine's own use of the addresses is in nobody's way here.
      wishes: { ...routing, vnat: [] },
      ranges,
      nameservers: resolver.nameservers,
      families: [4, 16],
      lookFor,
      rangesAgeMs,
      onTranslation: () => undefined,
      log,
    });
  }

  static async open(options: RootlessNetworkOptions, signal: AbortSignal): Promise<RootlessNetwork> {
    const network = new RootlessNetwork(options);
    try {
      await network.#open();
      signal.throwIfAborted();
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  get ways(): Ways | undefined {
    const dns = this.#dns?.addresses[0];
    return dns === undefined ? undefined : { dns, reach: this.#reach };
  }
  /** Where its own look-ups leave from. */
  get upstreamSourcePorts(): readonly number[] {
    return this.#dns?.upstreamSourcePorts ?? [];
  }
  setSession(session: TunnelSession | undefined): void {
    this.#opener.setSession(session);
    if (session !== undefined) this.#dns?.flush();
  }
  setAlsoNamespaces(alsoNamespaces: readonly string[]): void {
    this.setNames({ alsoNamespaces });
  }
  setNames(names: ChangingNames): void {
    this.#dns?.change(names);
  }
  async setResolver(resolver: HostResolver): Promise<void> {
    this.#dns?.setUpstreams(upstreamsOf(resolver.nameservers));
    await this.#routes.setNameservers(resolver.nameservers);
  }
  async setRanges(ranges: Ranges): Promise<void> {
    await this.#routes.setRanges(ranges);
    this.#dns?.change({ subnets: this.#routes.ranges });
  }

  status(): Promise<Pick<DaemonStatus, "routing">> {
    return Promise.resolve({ routing: this.#routes.status() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async #open(): Promise<void> {
    const { resolver, clock, log, proxy } = this.#options;
    await this.#routes.apply();
    this.#dns = this.#scope.use(
      await startDns({
        listen: [{ address: loopback, port: 0 }],
        upstreams: upstreamsOf(resolver.nameservers),
        config: { ...this.#options.names, subnets: this.#routes.ranges },
        exchange: this.#options.exchange,
        onAddresses: (answered) => this.#routes.cover(answered),
        lookupTimeoutMs: this.#options.lookupTimeoutMs,
        clock,
        log,
        signal: this.#scope.signal,
      }),
    );
    if (proxy === undefined) return;
    const reach = this.#reach;
    const socks = this.#scope.use(await openSocks({ port: proxy.socksPort, reach, clock, log }));
    const http = this.#scope.use(await openHttpProxy({ port: proxy.httpPort, reach, clock, log }));
    this.proxy = {
      socks: formatEndpoint({ address: loopback, port: socks.port }),
      http: formatEndpoint({ address: loopback, port: http.port }),
    };
  }

  /** Both families at once, as a program's own look-up would. */
  async #resolve(name: string): Promise<readonly string[] | undefined> {
    const dns = this.#dns;
    const answers = await Promise.all([dns?.ask(name, dnsTypes.a), dns?.ask(name, dnsTypes.aaaa)]);
    const known = answers.filter((answer) => answer !== undefined);
    if (known.length === 0) return undefined;
    const addresses = known.flatMap(({ answers: records }) => records.flatMap((record) => addressOf(record) ?? []));
    if (addresses.length > 0) return addresses.map((address) => formatAddress(address));
    if (known.some(({ rcode }) => rcode === dnsRcodes.servFail)) {
      throw new AppError("link_lost", `the cluster could not be asked for the name ${name}`);
    }
    throw new AppError("not_found", `there is no ${name} in the cluster`);
  }
}
