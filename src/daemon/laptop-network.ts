// The laptop's side of the cluster's network: device, packet path, DNS server, routes and DNS hook, opened in the order
// in which a packet meets them and undone in reverse. Everything that touches the host goes through the root helper
// and vanishes with it (DESIGN §7).
import { lookup } from "node:dns/promises";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { formatPrefix, parsePrefix, type Prefix } from "#packet/address.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { DnsHook } from "#wire/helper.ts";
import { planDeviceAddresses } from "./device-addresses.ts";
import { checkName, defaultExcludeSuffixes, routingDomains, searchDomain, type DnsConfig } from "./dns/names.ts";
import { checkAddress } from "./dns/resolve.ts";
import { startDns, type Dns } from "./dns/start.ts";
import type { Helper } from "./helper-client.ts";
import { startOutbound, type Outbound } from "./outbound/outbound.ts";
import { testDataPath } from "./outbound/self-test.ts";
import { planRoutes } from "./routing.ts";
import type { SessionNetwork } from "./session.ts";
import { SingleRoutes } from "./single-routes.ts";

export interface LaptopNetworkOptions {
  readonly helper: Helper;
  readonly session: TunnelSession;
  /** One DNS message to the cluster's resolver and back. */
  readonly exchange: (message: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;
  readonly names: DnsConfig;
  /** The host's own resolvers, and how names reach us. */
  readonly resolver: { readonly mode: "resolved" | "nft"; readonly nameservers: readonly string[] };
  readonly routing: {
    /** Service and pod ranges. */
    readonly cluster: readonly string[];
    /** False when the ranges were guessed from what is visible: answered addresses then get routes of their own. */
    readonly complete: boolean;
    readonly also: readonly string[];
    readonly never: readonly string[];
    /** The API server's addresses: in no route, whatever the user says. */
    readonly apiServer: readonly string[];
  };
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
  readonly warnings: readonly string[] = [];
  readonly #options: LaptopNetworkOptions;
  readonly #scope: Scope;
  readonly #resolveLost: (error: AppError) => void;
  readonly #single = new SingleRoutes(() => this.#applyRoutes());
  #outbound: Outbound | undefined;
  #dns: Dns | undefined;
  /** What look-ups are hooked with now. */
  #hooked: { readonly server: string; readonly hook: DnsHook } | undefined;
  #names: DnsConfig;
  #deviceName = "";
  #routes: readonly Prefix[] = [];

  private constructor(options: LaptopNetworkOptions) {
    this.#options = options;
    this.#names = options.names;
    this.#scope = new Scope(options.log);
    const { promise, resolve } = Promise.withResolvers<AppError>();
    this.lost = promise;
    this.#resolveLost = resolve;
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

  /** The link's session for new flows, or none while it is down. */
  setSession(session: TunnelSession | undefined): void {
    this.#outbound?.setSession(session);
    if (session !== undefined) this.#dns?.flush();
  }
  setAlsoNamespaces(alsoNamespaces: readonly string[]): void {
    this.setNames({ alsoNamespaces });
  }
  /** Namespaces, or services of the connection's own, came or went. */
  setNames(names: Partial<Pick<DnsConfig, "namespaces" | "services" | "alsoNamespaces">>): void {
    this.#names = { ...this.#names, ...names };
    this.#dns?.setConfig(this.#names);
    this.#renewHook();
  }

  get deviceName(): string {
    return this.#deviceName;
  }

  /** Tries the device and the system's resolver now, so that what it says is true now. */
  async status(signal: AbortSignal): Promise<Pick<DaemonStatus, "helper" | "dns" | "routing" | "problem">> {
    const { helper, resolver, routing } = this.#options;
    const [problem, dnsError] = await Promise.all([sayWhy(this.#testPath(signal)), sayWhy(this.#testDns(signal))]);
    const local = this.#dns?.addresses[0];
    return {
      ...(problem === undefined ? {} : { problem }),
      helper: { version: helper.version, pid: helper.pid, device: this.#deviceName },
      dns: {
        hook: resolver.mode,
        localAddress: local === undefined ? "" : `${local.address}:${local.port}`,
        upstreams: [...resolver.nameservers],
        clusterDomain: this.#names.clusterDomain,
        excludeSuffixes: [...(this.#names.excludeSuffixes ?? defaultExcludeSuffixes)],
        includeSuffixes: [...(this.#names.includeSuffixes ?? [])],
        ...(dnsError === undefined ? {} : { error: dnsError }),
      },
      routing: {
        subnets: this.#routes.map(formatPrefix),
        alsoProxy: [...routing.also],
        neverProxy: [...routing.never],
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async #open(signal: AbortSignal): Promise<void> {
    const { helper, routing, session, clock, log, resolver } = this.#options;
    helper.onLost((error) => this.#resolveLost(error));
    this.#scope.defer(() => helper.close());
    const addresses = planDeviceAddresses(routing.cluster.some((cidr) => cidr.includes(":")));
    const opened = await helper.openDevice({ addresses: [...addresses.prefixes], mtu: 65_535 });
    this.#deviceName = opened.name;
    const { device } = opened;
    device.onLost((error) => this.#resolveLost(error));
    this.#scope.defer(() => device.close());
    const outbound = await startOutbound({
      device,
      addresses: addresses.outbound,
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
        ...(resolver.nameservers.some((address) => address.includes(":")) ? [{ address: "::1", port: 0 }] : []),
      ],
      upstreams: resolver.nameservers.map((address) => ({ address, port: 53 })),
      config: this.#names,
      exchange: this.#options.exchange,
      ...(routing.complete ? {} : { onAddresses: (answered) => this.#single.cover(answered, this.#routes) }),
      clock,
      log,
      signal: this.#scope.signal,
    });
    this.#dns = this.#scope.use(dns);
    await this.#applyRoutes();
    const hook = this.#planHook(dns, addresses.dnsServer);
    this.#hooked = { server: addresses.dnsServer, hook };
    await helper.hookDns(hook);
    await Promise.all([this.#testPath(signal), this.#testDns(signal)]);
  }

  async #testPath(signal: AbortSignal): Promise<void> {
    const outbound = this.#outbound;
    if (outbound === undefined) throw new AppError("internal", "the data path is not open");
    const { helper, clock } = this.#options;
    await testDataPath({
      probe: planDeviceAddresses(false).outbound.v4?.probe ?? "",
      deviceName: this.#deviceName,
      stats: () => outbound.stats(),
      clock,
      signal,
      routeTo: (address) => helper.routeTo(address),
    });
  }

  /** Asks for a name that only we know, the way every program asks. */
  async #testDns(signal: AbortSignal): Promise<void> {
    const { clock, resolver } = this.#options;
    using limit = deadline(clock, dnsTestMs, "the look-up of a test name", signal);
    try {
      const { address } = await raceSignal(lookup(checkName, { family: 4 }), limit.signal);
      if (address === checkAddress) return;
    } catch (error) {
      if (signal.aborted) throw error;
      throw new AppError(
        "dns_hook_failed",
        `the system's resolver does not ask telepresence: ${toAppError(error).message}`,
        { cause: error, hint: dnsHints[resolver.mode] },
      );
    }
    throw new AppError("dns_hook_failed", `somebody else answers for ${checkName}`, { hint: dnsHints[resolver.mode] });
  }

  #planHook(dns: Dns, serverAddress: string): DnsHook {
    const { mode, nameservers } = this.#options.resolver;
    const portOf = (address: string): number => {
      const found = dns.addresses.find((entry) => entry.address === address);
      if (found === undefined) throw new AppError("internal", `the DNS server does not listen on ${address}`);
      return found.port;
    };
    if (mode === "resolved") {
      const domains = [...routingDomains(this.#names)];
      return { mode, server: serverAddress, port: portOf(serverAddress), domains, search: [searchDomain] };
    }
    return {
      mode,
      port: portOf("127.0.0.1"),
      nameservers: [...nameservers],
      upstreamSourcePorts: [...dns.upstreamSourcePorts],
    };
  }

  /** systemd-resolved asks us only for names that it was told are ours: a new namespace's, too. */
  #renewHook(): void {
    const standing = this.#hooked;
    if (standing === undefined || this.#dns === undefined || this.#scope.disposed) return;
    const hook = this.#planHook(this.#dns, standing.server);
    if (JSON.stringify(hook) === JSON.stringify(standing.hook)) return;
    this.#hooked = { ...standing, hook };
    this.#scope.background("DNS hook", this.#options.helper.hookDns(hook));
  }

  async #applyRoutes(): Promise<void> {
    const { helper, routing, resolver } = this.#options;
    const planned = planRoutes({
      cluster: [...parseAll(routing.cluster), ...this.#single.prefixes],
      also: parseAll(routing.also),
      // Trap 13: a resolver inside the cluster's ranges would be asked through ourselves.
      never: parseAll([...routing.never, ...routing.apiServer, ...resolver.nameservers.map(withoutZone)]),
    });
    await helper.setRoutes({ routes: planned.map(formatPrefix), never: [...routing.apiServer] });
    this.#routes = planned;
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

function withoutZone(address: string): string {
  return address.split("%")[0] ?? address;
}

function parseAll(cidrs: readonly string[]): readonly Prefix[] {
  return cidrs.map((cidr) => {
    const prefix = parsePrefix(cidr);
    if (prefix !== undefined) return prefix;
    throw new AppError("invalid_config", `${cidr} is not an address range; expected a form like 10.0.0.0/8`, {
      hint: "check --also-proxy, --never-proxy and the kubeconfig's extension",
    });
  });
}
