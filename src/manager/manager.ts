// Builds the manager's parts: the two doors (laptops on the pod's loopback, agents with pinned keys), what they share,
// and health. Disposing tells everybody, waits a moment, then cuts.
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { softwareVersion } from "#base/version.ts";
import { everyAddress } from "#tunnel/every-address.ts";
import { createIdentity, listenPinned } from "#tunnel/identity.ts";
import type { Identity, PinnedListener } from "#tunnel/identity.ts";
import { ReceivePool } from "#tunnel/receive-window.ts";
import { ResumableSessions } from "#tunnel/resumable-sessions.ts";
import { helloOf } from "#wire/hello.ts";
import { managerPoolBytes } from "#wire/limits.ts";
import type { Hello } from "#wire/hello.ts";
import { acceptAgent } from "./agent-link.ts";
import { Clouds } from "./cloud/clouds.ts";
import { lookupBySystem } from "./cloud/dial-name.ts";
import type { Lookup } from "./cloud/dial-name.ts";
import { interfaceAddresses } from "./config.ts";
import type { ManagerConfig } from "./config.ts";
import { DirectAdmissions } from "./direct-door.ts";
import { startHealthServer } from "./health.ts";
import { acceptLaptop } from "./laptop-link.ts";
import type { LaptopDoor, ManagerFacts } from "./laptop-link.ts";
import { Dialer } from "#egress/dial.ts";
import { createDialGuard } from "#egress/guard.ts";
import type { DialGuard, NodeGuard } from "#egress/guard.ts";
import { followNodeList } from "./node-list.ts";
import { clusterDomainOf, parseResolvConf } from "#egress/resolv-conf.ts";
import type { ResolvConf } from "#egress/resolv-conf.ts";
import { Resolver } from "#egress/resolve.ts";
import { RefusalLog } from "./refusal-log.ts";
import { Registry } from "./registry/registry.ts";

/** chosen: links that have not said HELLO, and all links, on the laptops' port. */
const maxLaptopConnections = 2500;
/** chosen: how long links may take to end in order. */
const closeMs = 1500;

export interface ManagerOptions {
  readonly config: ManagerConfig;
  readonly clock: Clock;
  readonly log: Logger;
  /** The real guard but in tests that dial loopback. */
  readonly guard?: DialGuard;
  /** How long an owner may be away before others may have its requests; ten minutes but in tests. */
  readonly idleOwnerMs?: number;
  /** Of names that previews and cloud servers have; the pod's resolver but in tests. */
  readonly lookup?: Lookup;
  /** Port of the nameservers; 53 but in tests. */
  readonly dnsPort?: number;
}

export interface Manager extends AsyncDisposable {
  readonly fingerprint: string;
  readonly laptopPort: number;
  readonly agentPort: number;
  readonly healthPort: number;
  readonly directPort: number;
  readonly registry: Registry;
}

export async function startManager(options: ManagerOptions): Promise<Manager> {
  const { config, clock, log } = options;
  const hello = helloOf("manager");
  const scope = new Scope(log);
  try {
    const resolvConf = parseResolvConf(await readFile(config.resolvConfPath, "utf8"));
    const identity = createIdentity("traffic-manager");
    const refusals = new RefusalLog(clock, log);
    const registry = scope.use(new Registry({ idleOwnerMs: options.idleOwnerMs, clock, log }));
    const ownGuard = guardOf(config);
    if (config.nodesFile !== undefined) {
      const path = config.nodesFile;
      const onAddresses = (addresses: readonly string[]): void => ownGuard.setMoreNodes(addresses);
      scope.use(await followNodeList({ path, onAddresses, clock, log }));
    }
    const dialer = new Dialer({ guard: options.guard ?? ownGuard, clock });
    const { nameservers } = resolvConf;
    const resolver = new Resolver({
      nameservers,
      clock,
      ...(options.dnsPort === undefined ? {} : { port: options.dnsPort }),
    });
    const links = scope.use(new OpenLinks(clock));
    const lookup = options.lookup ?? lookupBySystem;
    const clouds = scope.use(new Clouds({ registry, dialer, lookup, clock, log }));
    const shared = {
      registry,
      clouds,
      dialer,
      resolver,
      identity,
      hello,
      refusals,
      clock,
      log,
      links,
      signal: scope.signal,
    };
    const agents = scope.use(await openAgentDoor(shared, config));
    const door = laptopDoor(shared, config, resolvConf);
    scope.use(door.direct);
    const laptops = scope.use(await openLaptopDoor(shared, config, door));
    const direct = scope.use(await openDirectDoor(shared, config, door));
    const health = scope.use(await startHealthServer(config.ports.health, () => !scope.disposed));
    log.info("manager started", { pod: config.podName, fingerprint: identity.fingerprint });
    return {
      fingerprint: identity.fingerprint,
      laptopPort: laptops.port,
      agentPort: agents.port,
      healthPort: health.port,
      directPort: direct.port,
      registry,
      [Symbol.asyncDispose]: () => scope[Symbol.asyncDispose](),
    };
  } catch (error) {
    await scope[Symbol.asyncDispose]();
    throw error;
  }
}

interface Shared {
  readonly registry: Registry;
  readonly clouds: Clouds;
  readonly dialer: Dialer;
  readonly resolver: Resolver;
  readonly identity: Identity;
  readonly hello: Hello;
  readonly refusals: RefusalLog;
  readonly links: OpenLinks;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

async function openAgentDoor(shared: Shared, config: ManagerConfig): Promise<PinnedListener> {
  const { registry, refusals, links, signal } = shared;
  return await listenPinned({
    identity: shared.identity,
    port: config.ports.agent,
    host: await everyAddress(),
    isTrusted: (fingerprint) => registry.isTrusted(fingerprint),
    onConnection: (socket, fingerprint) => {
      void links.keep(acceptAgent(socket, fingerprint, shared, signal), (reason) =>
        refusals.warn("agent link refused", { key: abbreviate(fingerprint), reason }),
      );
    },
    onStranger: ({ address, fingerprint, reason }) =>
      refusals.warn("stranger refused on the agents' port", { address, key: abbreviate(fingerprint), reason }),
  });
}

function laptopDoor(shared: Shared, config: ManagerConfig, resolvConf: ResolvConf): LaptopDoor {
  const facts: ManagerFacts = {
    manager: {
      version: softwareVersion,
      podName: config.podName,
      podIps: [...config.podIps],
      namespace: config.namespace,
      fingerprint: shared.identity.fingerprint,
    },
    dns: { clusterDomain: clusterDomainOf(resolvConf), nameservers: [...resolvConf.nameservers] },
    ...(config.apiServiceHost === undefined ? {} : { apiServiceHost: config.apiServiceHost }),
  };
  const direct = new DirectAdmissions(shared.clock);
  const receivePool = new ReceivePool(managerPoolBytes);
  const sessions = new ResumableSessions();
  return { ...shared, facts, sessions, receivePool, direct, nodeAddresses: config.nodeIps };
}

/** For sessions that began at the laptops' door, and were proved there. */
async function openDirectDoor(shared: Shared, config: ManagerConfig, door: LaptopDoor): Promise<PinnedListener> {
  const { refusals, links, signal } = shared;
  return await listenPinned({
    identity: shared.identity,
    port: config.ports.direct,
    host: await everyAddress(),
    isTrusted: (fingerprint) => door.direct.isAdmitted(fingerprint),
    onConnection: (socket, fingerprint) => {
      const sessionId = door.direct.take(socket, fingerprint);
      if (sessionId === undefined) socket.destroy();
      else {
        void links.keep(acceptLaptop(socket, door, signal, sessionId), (reason) =>
          refusals.warn("direct laptop link refused", { key: abbreviate(fingerprint), reason }),
        );
      }
    },
    onStranger: ({ address, fingerprint, reason }) =>
      refusals.warn("stranger refused on the laptops' direct port", { address, key: abbreviate(fingerprint), reason }),
  });
}

async function openLaptopDoor(shared: Shared, config: ManagerConfig, door: LaptopDoor): Promise<LoopbackListener> {
  const { refusals, links, signal } = shared;
  return await listenOnLoopback(config.ports.laptop, (socket) => {
    void links.keep(acceptLaptop(socket, door, signal), (reason) => refusals.warn("laptop link refused", { reason }));
  });
}

function guardOf(config: ManagerConfig): NodeGuard {
  return createDialGuard({
    ownAddresses: [...config.podIps, ...interfaceAddresses()],
    nodeAddresses: config.nodeIps,
    allowNodes: config.allowNodes,
    allowRanges: config.allowRanges,
    denyRanges: config.denyRanges,
  });
}

/** Enough to tell keys apart. */
function abbreviate(fingerprint: string | undefined): string | undefined {
  return fingerprint?.slice(0, 12);
}

/** A laptop's or an agent's link that stands. */
interface OpenLink {
  /** Resolves when the link is over. */
  readonly closed: Promise<unknown>;
  /** Ends it in order; cuts it when the signal aborts. */
  close(signal: AbortSignal): Promise<void>;
}

/** Every link that stands, so that an ending manager can end them in order. */
class OpenLinks implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #links = new Set<OpenLink>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nothing to keep is a transport for a link that is kept already. */
  async keep(opening: Promise<OpenLink | undefined>, onRefused: (reason: string) => void): Promise<void> {
    try {
      const link = await opening;
      if (link === undefined) return;
      this.#links.add(link);
      await link.closed;
      this.#links.delete(link);
    } catch (error) {
      onRefused(toAppError(error).message);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    using limit = deadline(this.#clock, closeMs, "closing the links");
    await Promise.all([...this.#links].map((link) => link.close(limit.signal)));
  }
}

interface LoopbackListener extends AsyncDisposable {
  readonly port: number;
}

async function listenOnLoopback(port: number, onConnection: (socket: Socket) => void): Promise<LoopbackListener> {
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined); // the session hears it; before there is one, 'close' is enough
    onConnection(socket);
  });
  server.maxConnections = maxLaptopConnections;
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close();
        resolve();
      }),
  };
}
