// Opens a session with the real things: kubeconfig, manager (installed when missing), root helper, resolver. What can
// be done side by side is: the helper starts and the ranges are discovered while the link comes up.
import { deadline, linkSignals } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Scope } from "#base/scope.ts";
import { softwareVersion } from "#base/version.ts";
import { exec } from "#host/exec.ts";
import { devicesHaveIpv6 } from "#host/ipv6.ts";
import { ResolverWatch } from "#host/resolver-watch.ts";
import { detectResolver, type HostResolver } from "#host/resolver.ts";
import { ensureManager } from "#installer/manager.ts";
import { keepNodeList, type NodeListOptions } from "#installer/node-list.ts";
import { openKube, type Kube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import { namespaces, services } from "#kube/objects.ts";
import type { KubeTarget } from "#kube/target.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import type { ConnectOptions } from "#wire/control-api.ts";
import { deviceOwner } from "#wire/helper.ts";
import { unnamedConnection } from "#wire/connection-name.ts";
import type { DnsWishes } from "#wire/dns-wishes.ts";
import { managerAgentPort } from "#wire/manager-api.ts";
import { KubeAccess } from "./cluster-access.ts";
import { restoreLeft } from "./replaced-containers.ts";
import type { ChangingNames, DnsConfig } from "./dns/names.ts";
import { mergeWishes, withLocalAddresses } from "./dns/wishes.ts";
import { openDetours, rangesOf } from "./detours.ts";
import { ClusterNames, type KnownNames } from "./cluster-names.ts";
import { findReached, keepsOwnWay, nothingReached } from "#daemon/routing/already-reached.ts";
import type { RoutingWishes } from "#daemon/routing/device-routes.ts";
import { ClusterRanges } from "#daemon/routing/cluster-ranges.ts";
import type { Helper, HelperDoor } from "./helper-client.ts";
import type { HelperFailures } from "./helper-failures.ts";
import { LaptopNetwork } from "./laptop-network.ts";
import type { ManagerConnection, ManagerLink } from "#daemon/link/manager-link.ts";
import { warnOfMissingNamespaces } from "./missing-namespaces.ts";
import { RootlessNetwork } from "./rootless-network.ts";
import { addressesOnTheWay } from "#daemon/link/server-addresses.ts";
import { Session, type SessionNetwork } from "./session.ts";
import { networkVia, Via, type ViaOptions } from "./via.ts";
import { WayChanges } from "#daemon/link/way-changes.ts";
import type { Progress } from "#daemon/intercepts/workload-access.ts";

export const defaultImage = `docker.io/telepresence/telepresence:${softwareVersion}`;

export interface ClusterSessionContext {
  readonly door: HelperDoor;
  readonly failures: HelperFailures;
  readonly client: string;
  /** The connection's name, where it has one. */
  readonly connection: string | undefined;
  readonly installId: string;
  /** The user's directory for sockets. */
  readonly runtime: string;
  /** Where the user's login at a cloud server is, if there is one. */
  readonly login: LoginPlaces;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: the whole of `connect` when the manager has to be installed first, on a node that is made for it; its parts
 * have their own bounds. */
const connectTimeoutMs = 480_000;
/** chosen: a credential plugin may open a browser. */
const pluginTimeoutMs = 120_000;
/** protocol: of the API server's service, in every cluster. */
const apiServicePort = 443;
/** chosen: a person may have to type a password. */
const helperTimeoutMs = 120_000;
/** chosen: a command opens the helper's connection before it asks to connect; ours is noticed this much later at most. */
const doorMs = 1000;

/** Where a command's flags lead, as one comparable text. */
export async function identifyTarget(options: ConnectOptions): Promise<string> {
  const target = await loadTarget(options.kube);
  const { mappedNamespaces = [], alsoProxy = [], neverProxy = [], allowConflictingSubnets = [], vnat = [] } = options;
  const { via, proxyVia, managerNamespace, virtualSubnet, rootless, transport, direct, dns } = options;
  const { contextName, server, namespace, impersonate } = target;
  const lists = [mappedNamespaces, alsoProxy, neverProxy, allowConflictingSubnets, vnat].map((list) =>
    [...list].sort(),
  );
  return JSON.stringify([
    contextName,
    server,
    namespace,
    impersonate,
    target.user.name,
    managerNamespace,
    virtualSubnet,
    via,
    proxyVia,
    lists,
    rootless,
    transport,
    direct,
    dns,
  ]);
}

/** A client with the user's own credentials; credential plugins run in the command's environment. */
export function openUserKube(target: KubeTarget, clock: Clock): Kube {
  return openKube(target, {
    clock,
    runCommand: ({ file, args, env, cwd }, signal) =>
      exec(file, args, { env, cwd, signal, timeoutMs: pluginTimeoutMs, clock }),
  });
}

export async function openClusterSession(
  options: ConnectOptions,
  progress: Progress,
  context: ClusterSessionContext,
  signal: AbortSignal,
): Promise<{ session: Session; installed: boolean }> {
  const { client, installId, login, clock, log, runtime } = context;
  const who = { client, installId, login, clock, log };
  const target = await loadTarget(options.kube);
  const kube = openUserKube(target, clock);
  using limit = deadline(clock, connectTimeoutMs, "connecting", signal);
  const abandoned = new AbortController();
  using waiting = linkSignals(limit.signal, abandoned.signal);
  const helper = options.rootless === undefined ? waitForHelper(context, waiting.signal) : Promise.resolve(undefined);
  helper.catch(() => undefined); // awaited below, unless the manager fails first
  try {
    progress(`Connecting to ${target.server}`);
    const image = { image: options.image ?? defaultImage, pullPolicy: options.imagePullPolicy };
    const mappedNamespaces = options.mappedNamespaces ?? target.extension.mappedNamespaces;
    const missing = warnOfMissingNamespaces(kube, [kube.namespace, ...mappedNamespaces], limit.signal);
    const manager = await ensureManager(kube, {
      namespace: options.managerNamespace,
      image,
      direct: options.direct,
      signal: limit.signal,
      onProgress: progress,
    });
    const owner = { by: client, installId };
    const place = { kube, managerNamespace: manager.namespace, managerPodUid: manager.podUid, image };
    const access = new KubeAccess({ ...place, owner, volumes: { runtime, log } });
    const left = await restoreLeft(kube, { ...owner, namespaces: [kube.namespace, ...mappedNamespaces] }, limit.signal);
    const session = await Session.open(
      {
        access,
        managerNamespace: manager.namespace,
        managerImage: image.image,
        mappedNamespaces,
        rootless: options.rootless,
        via: options.via?.name,
        proxyVia: options.proxyVia?.map(({ subnet, workload }) => ({ subnet, workload: workload.name })),
        transport: options.transport,
        ...who,
        warnings: [...(await missing), ...manager.warnings, ...left],
        openNetwork: (link, first, scope) => {
          scope.use(kube);
          const parts = { options, kube, access, helper, link, first, scope, context, progress };
          return openNetwork({ ...parts, signal: limit.signal });
        },
      },
      limit.signal,
    );
    return { session, installed: manager.installed };
  } catch (error) {
    kube.close();
    // Before the command hears of it: the next one must neither find this helper nor share its own with us.
    abandoned.abort(error);
    await context.door.dismiss();
    throw error;
  }
}

async function waitForHelper(context: ClusterSessionContext, signal: AbortSignal): Promise<Helper> {
  using limit = deadline(context.clock, helperTimeoutMs, "starting the root helper", signal);
  const ending = new AbortController();
  using ended = linkSignals(limit.signal, ending.signal);
  try {
    const { door, failures } = context;
    return await Promise.race([
      door.wait(ended.signal),
      failures.next(ended.signal),
      nobodyComes(context, ended.signal),
    ]);
  } finally {
    context.failures.forget();
    ending.abort();
  }
}

/** A command that saw a helper running starts none, and that helper may have ended since. */
async function nobodyComes({ door, clock }: ClusterSessionContext, signal: AbortSignal): Promise<never> {
  await clock.sleep(doorMs, signal);
  if (door.isExpected) return await new Promise<never>(() => undefined);
  throw new AppError("helper_failed", "the root helper has ended", { hint: "run the command again" });
}

/** Of the workload's pod with --via: seen at other addresses, since these are this machine's own. */
const viaLoopback = "127.0.0.0/24";

interface NetworkStep {
  readonly access: KubeAccess;
  readonly progress: Progress;
  readonly options: ConnectOptions;
  readonly kube: Kube;
  /** Resolves with none where none is needed. */
  readonly helper: Promise<Helper | undefined>;
  readonly link: ManagerLink;
  readonly first: ManagerConnection;
  readonly scope: Scope;
  readonly context: ClusterSessionContext;
  readonly signal: AbortSignal;
}

/** What the network is made of, found out side by side. */
async function lookAround({ options, kube, helper, first, scope, context, signal }: NetworkStep) {
  const { clock, log } = context;
  const { extension, namespace, ca } = kube.target;
  const { manager, apiServiceHost } = first.arrival;
  const own = [namespace, manager.namespace];
  const mapped = options.mappedNamespaces ?? extension.mappedNamespaces;
  const follow = { kube, scope, log };
  const api = { host: apiServiceHost, port: apiServicePort, ca };
  const [resolver, ranges, allNamespaces, ownServices, apiServer, reached, readyHelper] = await Promise.all([
    detectResolver(clock, signal),
    ClusterRanges.discover({ kube, visible: own, podIps: manager.podIps, apiServiceHost, clock, log }, signal),
    mapped.length > 0 ? new ClusterNames(mapped) : ClusterNames.follow({ ...follow, kind: namespaces, query: {} }),
    ClusterNames.follow({ ...follow, kind: services, query: { namespace } }),
    addressesOnTheWay(kube.target),
    keepsOwnWay(options) ? findReached({ manager, managerPort: managerAgentPort, api, clock }, signal) : nothingReached,
    helper,
  ]);
  const wayTo = async (address = ""): Promise<string> =>
    (await readyHelper?.routeTo(address).catch(() => undefined)) ?? "its own route";
  const [by, byServices] = await Promise.all([wayTo(manager.podIps[0]), wayTo(apiServiceHost)]);
  // What another connection's device reaches goes with that connection.
  const isAnothers = (device: string): boolean => deviceOwner(device) !== undefined;
  return {
    own,
    resolver,
    ranges,
    allNamespaces,
    ownServices,
    apiServer,
    reached: {
      pods: reached.pods && !isAnothers(by),
      services: reached.services && !isAnothers(byServices),
      by,
    },
    helper: readyHelper,
    known: { namespaces: allNamespaces.current, services: ownServices.current, ranges: ranges.current },
  };
}

type Surroundings = Awaited<ReturnType<typeof lookAround>>;

async function openNetwork(step: NetworkStep): Promise<SessionNetwork> {
  const { options, kube, link, first, scope, context, signal } = step;
  const { clock, log } = context;
  const { extension } = kube.target;
  const { manager, dns } = first.arrival;
  const found = await lookAround(step);
  const { own, resolver, ranges, apiServer, reached, helper, known } = found;
  const onNodes: NodeListOptions["onNodes"] = (nodes) =>
    scope.background("the nodes' ranges", ranges.onNodes(nodes, scope.signal));
  const nodeList = keepNodeList(kube, { namespace: manager.namespace, onNodes, log }, scope.signal);
  scope.background("list of nodes", nodeList);
  const withOwn = (names: readonly string[]): readonly string[] => [...new Set([...names, ...own])];
  const via = options.via && (await openVia(step, options.via));
  const detours = await openDetours({
    wishes: options.proxyVia ?? [],
    ranges: () => ranges.current,
    also: alsoOf(step),
    open: (workload) => openVia(step, workload),
  });
  const wishes = mergeWishes(extension.dns, options.dns ?? {});
  // A pod's own resolver may see other names than the connection's namespace has.
  const servicesOf = ({ names, addresses }: KnownNames): ChangingNames =>
    via === undefined ? { services: names, serviceAddresses: addresses } : { services: names };
  const common = {
    session: via?.session ?? first.session,
    exchange: (message: Uint8Array, exchangeSignal: AbortSignal) =>
      via === undefined ? exchangeDns(link, message, exchangeSignal) : via.exchange(message, exchangeSignal),
    names: {
      ...namesOf(wishes),
      connection: context.connection ?? unnamedConnection,
      namespace: kube.target.namespace,
      clusterDomain: dns.clusterDomain,
      namespaces: withOwn(known.namespaces.names),
      ...servicesOf(known.services),
    },
    lookupTimeoutMs: wishes.lookupTimeoutMs,
    resolver: withLocalAddresses(resolver, wishes),
    ranges: known.ranges,
    routing: { ...planRouting(step, helper !== undefined), apiServer },
    detours,
    lookFor: (addresses: readonly string[]) => ranges.lookFor(addresses, scope.signal),
    rangesAgeMs: () => ranges.ageMs,
    clock,
    log,
  };
  const network =
    helper === undefined
      ? await RootlessNetwork.open({ ...common, proxy: options.rootless?.proxy }, signal)
      : await LaptopNetwork.open({ ...common, helper, reached, laptopHasIpv6: devicesHaveIpv6() }, signal);
  followChanges(step, found, { network, wishes, withOwn, servicesOf });
  const ways = detours.map((detour) => detour.via);
  return via === undefined && ways.length === 0 ? network : networkVia(network, via, ways);
}

interface Opened {
  readonly network: LaptopNetwork | RootlessNetwork;
  readonly wishes: DnsWishes;
  readonly withOwn: (names: readonly string[]) => readonly string[];
  readonly servicesOf: (services: KnownNames) => ChangingNames;
}

/** What was found when the network was opened changes while it stands. */
function followChanges(
  { link, scope, context }: NetworkStep,
  { resolver, ranges, allNamespaces, ownServices, known }: Surroundings,
  { network, wishes, withOwn, servicesOf }: Opened,
): void {
  const { clock, log } = context;
  const isOwn = (device: string): boolean => device === network.deviceName;
  const onResolver = (changed: HostResolver): void =>
    scope.background("resolver", network.setResolver(withLocalAddresses(changed, wishes)));
  const resolverWatch = scope.use(new ResolverWatch({ known: resolver, onChange: onResolver, clock, log }));
  const onWayChange = (): void => {
    link.recheck();
    resolverWatch.recheck();
  };
  scope.use(new WayChanges({ isOwn, onChange: onWayChange, clock, log }));
  allNamespaces.deliver(known.namespaces, ({ names }) => network.setNames({ namespaces: withOwn(names) }));
  ownServices.deliver(known.services, (services) => network.setNames(servicesOf(services)));
  ranges.follow(known.ranges, (more) => network.setRanges(more), scope);
}

const alsoOf = ({ options, kube }: NetworkStep): readonly string[] => [
  ...(options.alsoProxy ?? []),
  ...kube.target.extension.alsoProxy,
];

/** Without a device nothing is seen elsewhere, and what is the cluster's is only what is asked of us. */
function planRouting(step: NetworkStep, hasDevice: boolean): Omit<RoutingWishes, "apiServer"> {
  const { options, kube } = step;
  const { proxyVia = [] } = options;
  const viaSubnets = proxyVia.map(({ subnet }) => subnet);
  return {
    also: hasDevice ? alsoOf(step) : [...alsoOf(step), ...withoutLoopback(rangesOf(proxyVia))],
    never: [...(options.neverProxy ?? []), ...kube.target.extension.neverProxy],
    overlap: [...(options.allowConflictingSubnets ?? []), ...kube.target.extension.allowConflictingSubnets],
    vnat: [...(options.vnat ?? []), ...(options.via === undefined ? [] : [viaLoopback]), ...viaSubnets],
    virtualSubnet: options.virtualSubnet,
  };
}

const withoutLoopback = (cidrs: readonly string[]): readonly string[] =>
  cidrs.filter((cidr) => !cidr.startsWith("127.") && !cidr.startsWith("::1"));

async function openVia(step: NetworkStep, workload: ViaOptions["workload"]): Promise<Via> {
  const { access, kube, scope, context, progress, signal } = step;
  const { clock, log } = context;
  const { namespace } = kube.target;
  return scope.use(await Via.open({ access, workload, namespace, clock, log }, progress, signal));
}

/** What of the names is settled at `connect`. */
function namesOf({ includeSuffixes, excludeSuffixes, excludes, mappings }: DnsWishes): Partial<DnsConfig> {
  return {
    ...(includeSuffixes && { includeSuffixes }),
    ...(excludeSuffixes && { excludeSuffixes }),
    ...(excludes && { excludes }),
    ...(mappings && { mappings }),
  };
}

async function exchangeDns(link: ManagerLink, message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
  const query = Buffer.from(message.buffer, message.byteOffset, message.byteLength).toString("base64");
  const answer = await link.require().rpc.call("dns.exchange", { message: query }, signal);
  return Buffer.from(answer.message, "base64");
}
