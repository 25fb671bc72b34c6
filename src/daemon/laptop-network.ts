// The laptop's side of the cluster's network: device, packet path, DNS server, routes and DNS hook, opened in the order
// in which a packet meets them and undone in reverse. Everything that touches the host goes through the root helper
// and vanishes with it (DESIGN §7).
import { lookup } from "node:dns/promises";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import type { Prefix } from "#packet/address.ts";
import { Scope } from "#base/scope.ts";
import type { HostResolver } from "#host/resolver.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import { maxDeviceSlots, type DnsHook } from "#wire/helper.ts";
import type { Reached } from "#daemon/routing/already-reached.ts";
import type { Ranges } from "#daemon/routing/cluster-ranges.ts";
import { planDeviceAddresses, planIpv6, type DeviceAddresses } from "#daemon/routing/device-addresses.ts";
import { DeviceRoutes, type RoutingWishes } from "#daemon/routing/device-routes.ts";
import { defaultLookupTimeoutMs } from "./dns/cluster.ts";
import {
  checkNameOf,
  defaultExcludeSuffixes,
  routingDomains,
  searchDomain,
  suffixOf,
  type ChangingNames,
  type DnsConfig,
} from "./dns/names.ts";
import { checkAddress } from "./dns/resolve.ts";
import { startDns, type Dns } from "./dns/start.ts";
import { upstreamsOf, type Upstream } from "./dns/upstream.ts";
import type { Helper } from "./helper-client.ts";
import type { Detour } from "./outbound/open-stream.ts";
import { startOutbound, type Outbound } from "./outbound/outbound.ts";
import { testDataPath } from "./outbound/self-test.ts";
import type { Ways } from "#daemon/private-networks/private-network.ts";
import { Reach } from "./proxy/reach.ts";
import { RootlessNetwork } from "./rootless-network.ts";
import type { SessionNetwork } from "./session.ts";

export interface LaptopNetworkOptions {
  readonly helper: Helper;
  readonly session: TunnelSession;
  /** One DNS message to the cluster's resolver and back. */
  readonly exchange: (message: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;
  readonly names: DnsConfig;
  readonly lookupTimeoutMs?: number | undefined;
  /** The host's own resolvers, and how names reach us. */
  readonly resolver: HostResolver;
  readonly ranges: Ranges;
  /** What this machine reaches by itself, and by which device. */
  readonly reached: Reached & { readonly by: string };
  readonly routing: RoutingWishes;
  /** Whether this laptop's devices have IPv6. Default: true. */
  readonly laptopHasIpv6?: boolean;
  /** Where connections to some addresses go instead of the session. */
  readonly detours?: readonly Detour[] | undefined;
  /** Answered addresses that no range holds: perhaps a range has come. */
  readonly lookFor: (addresses: readonly string[]) => Promise<void>;
  /** How long ago the cluster said which its ranges are. */
  readonly rangesAgeMs?: (() => number) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: the answer comes from this process; what takes longer does not ask us. */
const dnsTestMs = 2000;
const dnsHints = {
  resolved: "see `resolvectl status` for the device's DNS server and domains",
  nft: "another DNS redirect or a local caching resolver may be in the way: see `nft list ruleset` and /etc/resolv.conf",
} as const;

export class LaptopNetwork implements SessionNetwork {
  /** Resolves when the helper or the device is gone. */
  readonly lost: Promise<AppError>;
  readonly #options: LaptopNetworkOptions;
  readonly #scope: Scope;
  readonly #resolveLost: (error: AppError) => void;
  readonly #routes: DeviceRoutes;
  readonly #wantsIpv6: boolean;
  /** Of the device: the first connection's is in 0, and has the names as the cluster writes them. */
  #slot = 0;
  #addresses: DeviceAddresses;
  /** Of a later one, for programs in networks of their own, where no other connection is. */
  #ofPrograms: RootlessNetwork | undefined;
  #resolver: HostResolver;
  #outbound: Outbound | undefined;
  #dns: Dns | undefined;
  /** What look-ups are hooked with now. */
  #hooked: { readonly server: string; readonly hook: DnsHook } | undefined;
  #deviceName = "";

  private constructor(options: LaptopNetworkOptions) {
    this.#options = options;
    this.#resolver = options.resolver;
    this.#scope = new Scope(options.log);
    const { promise, resolve } = Promise.withResolvers<AppError>();
    this.lost = promise;
    this.#resolveLost = resolve;
    const { helper, routing: wishes, ranges, reached, resolver, lookFor, rangesAgeMs, log } = options;
    const { services, pods } = ranges;
    const { laptopHasIpv6 = true } = options;
    const cluster = [...services, ...pods];
    this.#wantsIpv6 = planIpv6({ cluster, also: wishes.also, laptopHasIpv6 });
    this.#addresses = planDeviceAddresses(this.#wantsIpv6);
    this.#routes = new DeviceRoutes({
      helper,
      wishes,
      ranges,
      reached,
      nameservers: resolver.nameservers,
      families: this.#wantsIpv6 ? [4, 16] : [4],
      laptopHasIpv6,
      lookFor,
      rangesAgeMs,
      onTranslation: (translation) => this.#dns?.change({ translation, subnets: this.#subnets }),
      log,
    });
  }

  /** A network whose data path was tried, or every step undone. */
  static async open(options: LaptopNetworkOptions, signal: AbortSignal): Promise<LaptopNetwork> {
    const network = new LaptopNetwork(options);
    try {
      await network.#open(signal);
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Every program of the laptop is led by the routes, so this process is too; but those may be another connection's. */
  get ways(): Ways | undefined {
    if (this.#ofPrograms !== undefined) return this.#ofPrograms.ways;
    const dns = this.#dns?.addresses[0];
    if (dns === undefined) return undefined;
    const { clock } = this.#options;
    const open = (): Promise<never> => Promise.reject(new AppError("internal", "nothing is dialed past the routes"));
    return {
      dns,
      reach: new Reach({ open, isCluster: () => false, resolve: () => Promise.resolve(undefined), clock }),
    };
  }
  get warnings(): readonly string[] {
    const suffix = suffixOf(this.#options.names);
    if (this.#slot === 0 || suffix === undefined) return this.#routes.warnings;
    const names = `another connection came first: names of this one are below ${suffix} only (SERVICE.NAMESPACE.${suffix})`;
    return [names, ...this.#routes.warnings];
  }
  asSeenHere(text: string): string {
    return this.#routes.translation.inText(text);
  }
  /** The link's session for new flows, or none while it is down. */
  setSession(session: TunnelSession | undefined): void {
    this.#outbound?.setSession(session);
    this.#ofPrograms?.setSession(session);
    if (session !== undefined) this.#dns?.flush();
  }
  setAlsoNamespaces(alsoNamespaces: readonly string[]): void {
    this.setNames({ alsoNamespaces });
  }
  /** Namespaces, or services of the connection's own, came or went. */
  setNames(names: ChangingNames): void {
    this.#dns?.change(names);
    this.#ofPrograms?.setNames(names);
    this.#renewHook();
  }

  /** Another network, other nameservers. */
  async setResolver(resolver: HostResolver): Promise<void> {
    this.#resolver = resolver;
    this.#dns?.setUpstreams(this.#upstreams, this.#behind);
    this.#renewHook();
    await this.#ofPrograms?.setResolver(resolver);
    await this.#routes.setNameservers(resolver.nameservers);
  }

  get deviceName(): string {
    return this.#deviceName;
  }

  /** The cluster has more addresses than before. */
  async setRanges(ranges: Ranges): Promise<void> {
    await this.#routes.setRanges(ranges);
    this.#dns?.change({ subnets: this.#subnets });
    await this.#ofPrograms?.setRanges(ranges);
  }

  /** Tries the device and the system's resolver now, so that what it says is true now. */
  async status(signal: AbortSignal): Promise<Pick<DaemonStatus, "helper" | "dns" | "routing" | "problem">> {
    const { helper } = this.#options;
    const resolver = this.#resolver;
    const [problem, dnsError] = await Promise.all([sayWhy(this.#testPath(signal)), sayWhy(this.#testDns(signal))]);
    const local = this.#dns?.addresses[0];
    const names = this.#dns?.config ?? this.#options.names;
    return {
      ...(problem === undefined ? {} : { problem }),
      helper: { version: helper.version, pid: helper.pid, device: this.#deviceName },
      dns: {
        hook: resolver.mode,
        localAddress: local === undefined ? "" : `${local.address}:${local.port}`,
        upstreams: [...resolver.nameservers],
        clusterDomain: names.clusterDomain,
        suffix: suffixOf(names),
        suffixOnly: names.suffixOnly,
        excludeSuffixes: [...(names.excludeSuffixes ?? defaultExcludeSuffixes)],
        includeSuffixes: [...(names.includeSuffixes ?? [])],
        excludes: [...(names.excludes ?? [])],
        mappings: [...(names.mappings ?? [])],
        lookupTimeoutMs: this.#options.lookupTimeoutMs ?? defaultLookupTimeoutMs,
        ...(dnsError === undefined ? {} : { error: dnsError }),
      },
      routing: this.#routes.status(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async #open(signal: AbortSignal): Promise<void> {
    const { helper, session, clock, log } = this.#options;
    helper.onLost((error) => this.#resolveLost(error));
    this.#scope.defer(() => helper.close());
    const device = await this.#openDevice();
    const addresses = this.#addresses;
    device.onLost((error) => this.#resolveLost(error));
    this.#scope.defer(() => device.close());
    const outbound = await startOutbound({
      device,
      addresses: addresses.outbound,
      realAddress: (address) => this.#routes.translation.toReal(address),
      detours: this.#options.detours,
      session,
      clock,
      log,
      signal: this.#scope.signal,
    });
    this.#outbound = this.#scope.use(outbound);
    const dns = await startDns({
      listen: [
        { address: "127.0.0.1", port: 0 },
        { address: addresses.dnsServer, port: 0 },
        // A redirect of queries to an IPv6 nameserver leads to the IPv6 loopback.
        { address: "::1", port: 0, optional: true },
      ],
      upstreams: this.#upstreams,
      behind: this.#behind,
      config: {
        ...this.#options.names,
        suffixOnly: this.#slot > 0,
        subnets: this.#subnets,
        withoutIpv6: !(this.#options.laptopHasIpv6 ?? true),
      },
      exchange: this.#options.exchange,
      onAddresses: (answered) => this.#routes.cover(answered),
      lookupTimeoutMs: this.#options.lookupTimeoutMs,
      clock,
      log,
      signal: this.#scope.signal,
    });
    this.#dns = this.#scope.use(dns);
    await this.#routes.apply();
    this.#dns.change({ subnets: this.#subnets });
    if (this.#slot > 0) {
      const ofPrograms = await RootlessNetwork.open({ ...this.#options, proxy: undefined }, signal);
      this.#ofPrograms = this.#scope.use(ofPrograms);
    }
    const hook = this.#planHook(dns, addresses.dnsServer);
    this.#hooked = { server: addresses.dnsServer, hook };
    await helper.hookDns(hook);
    await Promise.all([this.#testPath(signal), this.#testDns(signal)]);
  }

  /** In the first slot that no other connection of this user has. */
  async #openDevice(): Promise<PacketDevice> {
    for (let slot = 0; ; slot++) {
      const addresses = planDeviceAddresses(this.#wantsIpv6, slot);
      const wanted = { slot, addresses: [...addresses.prefixes], mtu: 65_535 };
      try {
        const { name, device } = await this.#options.helper.openDevice(wanted);
        [this.#slot, this.#addresses, this.#deviceName] = [slot, addresses, name];
        return device;
      } catch (error) {
        const isTaken = isAppError(error) && error.fields["taken"] !== undefined;
        if (!isTaken || slot === maxDeviceSlots - 1) throw error;
      }
    }
  }

  /** Whose reverse names are ours: a later connection's ranges may be those of an earlier one, too. */
  get #subnets(): readonly Prefix[] {
    return this.#slot === 0 ? this.#routes.ranges : this.#routes.routed;
  }

  /** What a later connection forwards is for the first one's redirect; only that one has wishes of whom to ask. */
  get #upstreams(): readonly Upstream[] {
    const { mode, nameservers, asked } = this.#resolver;
    return upstreamsOf(this.#slot > 0 && mode === "nft" ? asked : nameservers);
  }

  get #behind(): readonly Upstream[] {
    return upstreamsOf(this.#slot > 0 ? [] : (this.#resolver.behind ?? []));
  }

  async #testPath(signal: AbortSignal): Promise<void> {
    const outbound = this.#outbound;
    if (outbound === undefined) throw new AppError("internal", "the data path is not open");
    const { helper, clock } = this.#options;
    await testDataPath({
      probe: this.#addresses.outbound.v4?.probe ?? "",
      deviceName: this.#deviceName,
      stats: () => outbound.stats(),
      clock,
      signal,
      routeTo: (address) => helper.routeTo(address),
    });
  }

  /** Asks for a name that only we know, the way every program asks. */
  async #testDns(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const { mode } = this.#resolver;
    const checkName = checkNameOf(this.#dns?.config ?? this.#options.names);
    using limit = deadline(clock, dnsTestMs, "the look-up of a test name", signal);
    try {
      const { address } = await raceSignal(lookup(checkName, { family: 4 }), limit.signal);
      if (address === checkAddress) return;
    } catch (error) {
      if (signal.aborted) throw error;
      throw new AppError(
        "dns_hook_failed",
        `the system's resolver does not ask telepresence: ${toAppError(error).message}`,
        { cause: error, hint: dnsHints[mode] },
      );
    }
    throw new AppError("dns_hook_failed", `somebody else answers for ${checkName}`, { hint: dnsHints[mode] });
  }

  #planHook(dns: Dns, serverAddress: string): DnsHook {
    const { mode, asked } = this.#resolver;
    const portOf = (address: string): number => {
      const found = dns.addresses.find((entry) => entry.address === address);
      if (found === undefined) throw new AppError("internal", `the DNS server does not listen on ${address}`);
      return found.port;
    };
    if (mode === "resolved") {
      const domains = [...routingDomains(dns.config)];
      const search = this.#slot === 0 ? [searchDomain] : [];
      return { mode, server: serverAddress, port: portOf(serverAddress), domains, search };
    }
    return {
      mode,
      port: portOf("127.0.0.1"),
      nameservers: [...asked],
      upstreamSourcePorts: [...dns.upstreamSourcePorts],
      pastOthersSourcePorts: [...(this.#ofPrograms?.upstreamSourcePorts ?? [])],
    };
  }

  /** systemd-resolved asks us only for names that it was told are ours: a new namespace's, too. */
  #renewHook(): void {
    const standing = this.#hooked;
    if (standing === undefined || this.#dns === undefined || this.#scope.disposed) return;
    const hook = this.#planHook(this.#dns, standing.server);
    if (JSON.stringify(hook) === JSON.stringify(standing.hook)) return;
    const wanted = { ...standing, hook };
    this.#hooked = wanted;
    const hooked = this.#options.helper.hookDns(hook).catch((error: unknown) => {
      if (this.#hooked === wanted) this.#hooked = standing; // the next change tries again
      throw error;
    });
    this.#scope.background("DNS hook", hooked);
  }
}

/** The message of a failed check; undefined when it succeeded. */
async function sayWhy(check: Promise<void>): Promise<string | undefined> {
  try {
    await check;
    return undefined;
  } catch (error) {
    return toAppError(error).message;
  }
}
