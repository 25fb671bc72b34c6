// Pure: which ports an agent takes from an application and how. A port that every service reaches by name is taken by
// carrying the name; any other needs a redirect inside the pod, as do the ports of pods that no service leads to.
// Renaming a port renames what refers to it.
import { AppError } from "#base/error.ts";
import type { Container, ContainerPort, NetworkHandler, PodSpec, Service } from "#kube/objects.ts";
import type { TakenRoute } from "#kube/workloads/service-ports.ts";
import { canBeTaken, lowerProtocol, routeDeclaredPorts, routeServicePorts } from "#kube/workloads/service-ports.ts";
import type { AgentPort, AppPort, PodProbe } from "#wire/agent-api.ts";
import { findProbes } from "./pod-probes.ts";
import { probesSay, speaksHttp, speaksTls } from "./port-protocol.ts";
import { agentFirstPort, agentHealthPort, agentIntroductionPort } from "#wire/agent-api.ts";

export interface Rename {
  readonly from: string;
  readonly to: string;
  /** TCP when left out. */
  readonly protocol?: "UDP";
}

export interface Takeover {
  readonly ports: readonly AgentPort[];
  /** Ports that the agent's container declares: the names it takes over. */
  readonly declared: readonly ContainerPort[];
  readonly renames: readonly Rename[];
}

/** Longest name of a port in Kubernetes. */
const maxNameLength = 15;

/**
 * `names`: a port that every service finds by name is taken by carrying the name. `redirect`: all by redirect, since
 * the containers of a running pod keep their names.
 */
export type TakeoverBy = "names" | "redirect";

export interface TakeoverOptions {
  /** Every service that selects the pods. */
  readonly services: readonly Service[];
  /** Ports that are needed: taken also when no service and no container names them. */
  readonly asked: readonly AppPort[];
  /** Names the pod or the workload in errors. */
  readonly what: string;
  readonly by: TakeoverBy;
}

/** All service ports of one pod (template). Throws when the application needs a port that is the agent's. */
export function planTakeover(pod: PodSpec, { services, asked, what, by }: TakeoverOptions): Takeover {
  const all = services.length === 0 ? routeDeclaredPorts(pod, asked) : routeServicePorts(pod, services).routes;
  const routes = all.filter(canBeTaken);
  const used = usedPorts(pod, routes, what);
  const probes = findProbes(pod);
  const ports: AgentPort[] = [];
  const declared: ContainerPort[] = [];
  let next = agentFirstPort;
  for (const group of groupRoutes(pod, routes)) {
    while (used.has(next)) next++;
    const [first] = group;
    const byName = by === "names" && group.every((route) => route.portName !== undefined && !route.headless);
    if (!byName && by === "names" && !isWorthRedirect(first, asked)) continue;
    const common = { agentPort: next++, ...describeGroup(group, probes) };
    if (!byName) {
      ports.push({ ...common, takeover: "redirect" });
      continue;
    }
    const names = [...new Set(group.map((route) => route.portName ?? ""))].toSorted();
    ports.push({ ...common, takeover: "name", portName: names[0] ?? "" });
    const protocol = common.protocol.toUpperCase();
    for (const name of names) declared.push({ name, containerPort: common.agentPort, protocol });
  }
  return { ports, declared, renames: planRenames(pod, declared) };
}

/** Numbers that the application has; throws when one of them is the agent's. */
function usedPorts(pod: PodSpec, routes: readonly TakenRoute[], what: string): ReadonlySet<number> {
  const declared = allContainers(pod).flatMap((item) => (item.ports ?? []).map((port) => port.containerPort));
  const used = new Set([...declared, ...routes.map((route) => route.containerPort)]);
  const reserved = [agentHealthPort, agentIntroductionPort].find((port) => used.has(port));
  if (reserved === undefined) return used;
  throw new AppError("not_interceptable", `${what} uses port ${reserved}, which the traffic-agent needs in its pods`, {
    hint: "give the application another containerPort",
  });
}

function describeGroup(group: Group, probes: readonly PodProbe[]): Omit<AgentPort, "agentPort" | "takeover"> {
  const [{ containerPort, containerName, protocol }] = group;
  const byProbes =
    protocol === "tcp" ? probesSay(probes.filter((probe) => probe.containerPort === containerPort)) : undefined;
  const byServices = speaksHttp(group);
  const tls = speaksTls(group) || (byServices === undefined && byProbes === "tls");
  const http = byServices ?? (byProbes === "http" && !tls ? true : undefined);
  return {
    containerPort,
    containerName,
    protocol,
    ...(http === undefined ? {} : { http }),
    ...(tls ? { tls: true } : {}),
  };
}

/** A redirect takes a privilege, which is not asked for because of datagrams that nobody wants. */
function isWorthRedirect({ protocol, containerPort }: TakenRoute, asked: readonly AppPort[]): boolean {
  return protocol === "tcp" || asked.some((port) => port.protocol === "udp" && port.containerPort === containerPort);
}

type Group = readonly [TakenRoute, ...TakenRoute[]];

/** Routes by container port, in an order that does not depend on the order of services. */
function groupRoutes(pod: PodSpec, routes: readonly TakenRoute[]): readonly Group[] {
  const order = allContainers(pod).map((container) => container.name);
  const groups = new Map<string, [TakenRoute, ...TakenRoute[]]>();
  for (const route of routes) {
    const key = `${order.indexOf(route.containerName)} ${String(route.containerPort).padStart(5, "0")} ${route.protocol}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [route]);
    else group.push(route);
  }
  return [...groups.entries()]
    .toSorted(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([, group]) => group);
}

function planRenames(pod: PodSpec, declared: readonly ContainerPort[]): readonly Rename[] {
  const taken = new Set(allContainers(pod).flatMap((item) => (item.ports ?? []).map((port) => port.name ?? "")));
  return declared.map((port) => {
    const to = freeName(port.name ?? "", taken);
    taken.add(to);
    return { from: port.name ?? "", to, ...(lowerProtocol(port.protocol) === "udp" ? { protocol: "UDP" } : {}) };
  });
}

function freeName(name: string, taken: ReadonlySet<string>): string {
  for (let attempt = 0; ; attempt++) {
    const suffix = attempt === 0 ? "" : `-${attempt}`;
    const candidate = `tm-${name}`.slice(0, maxNameLength - suffix.length).replace(/-+$/, "") + suffix;
    if (!taken.has(candidate)) return candidate;
  }
}

/** Renames ports in each container, and the probes and hooks of that container that use the name. */
export function renamePorts(containers: readonly Container[], renames: readonly Rename[]): readonly Container[] {
  if (renames.length === 0) return containers;
  const names = new Map(renames.map(({ from, to, protocol = "TCP" }) => [`${from}/${protocol}`, to]));
  return containers.map((container) => renameIn(container, names));
}

function renameIn(container: Container, names: ReadonlyMap<string, string>): Container {
  const own = new Set((container.ports ?? []).map((port) => port.name));
  const applied = new Map<string, string>();
  const ports = container.ports?.map((port) => {
    const to = names.get(`${port.name ?? ""}/${port.protocol ?? "TCP"}`);
    if (to === undefined || own.has(to)) return port;
    applied.set(port.name ?? "", to);
    return { ...port, name: to };
  });
  if (applied.size === 0) return container;
  const follow = <T extends NetworkHandler>(handler: T): T => renameHandler(handler, applied);
  const { livenessProbe, readinessProbe, startupProbe, lifecycle } = container;
  return {
    ...container,
    ...(ports === undefined ? {} : { ports }),
    ...(livenessProbe === undefined ? {} : { livenessProbe: follow(livenessProbe) }),
    ...(readinessProbe === undefined ? {} : { readinessProbe: follow(readinessProbe) }),
    ...(startupProbe === undefined ? {} : { startupProbe: follow(startupProbe) }),
    ...(lifecycle === undefined
      ? {}
      : {
          lifecycle: {
            ...lifecycle,
            ...(lifecycle.postStart === undefined ? {} : { postStart: follow(lifecycle.postStart) }),
            ...(lifecycle.preStop === undefined ? {} : { preStop: follow(lifecycle.preStop) }),
          },
        }),
  };
}

function renameHandler<T extends NetworkHandler>(handler: T, names: ReadonlyMap<string, string>): T {
  const rename = (port: number | string): number | string =>
    typeof port === "string" ? (names.get(port) ?? port) : port;
  return {
    ...handler,
    ...(handler.httpGet === undefined ? {} : { httpGet: { ...handler.httpGet, port: rename(handler.httpGet.port) } }),
    ...(handler.tcpSocket === undefined
      ? {}
      : { tcpSocket: { ...handler.tcpSocket, port: rename(handler.tcpSocket.port) } }),
  };
}

export function allContainers(pod: PodSpec): readonly Container[] {
  return [...pod.containers, ...(pod.initContainers ?? [])];
}
