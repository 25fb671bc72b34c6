// Pure: how a Service's ports lead to a pod's containers, in the rules the endpoints controller uses. A named
// targetPort is looked up by name and protocol over the containers in order; a number needs no declaration. Where no
// Service leads, the ports that the containers declare are all that can be known.
import type { Container, PodSpec, Service, ServicePort } from "#kube/objects.ts";

export interface PortRoute {
  /** Both undefined for a port of a pod that no service leads to. */
  readonly service: Service | undefined;
  readonly servicePort: ServicePort | undefined;
  readonly containerName: string;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp" | "sctp";
  /** Set when the Service finds the container by this name; without one, the name that the container gives it. */
  readonly portName: string | undefined;
  /** Callers of a headless service dial the pod's port itself, and so they do without a service. */
  readonly headless: boolean;
}

/** What an agent can take: SCTP it cannot. */
export type TakenRoute = PortRoute & { readonly protocol: "tcp" | "udp" };
export const canBeTaken = (route: PortRoute): route is TakenRoute => route.protocol !== "sctp";

export interface UnroutedPort {
  readonly service: Service;
  readonly servicePort: ServicePort;
  readonly why: string;
}

export interface RoutedPorts {
  readonly routes: readonly PortRoute[];
  readonly unrouted: readonly UnroutedPort[];
}

/** All ports of these services on one pod template; services are taken to select it. */
export function routeServicePorts(pod: PodSpec, services: readonly Service[]): RoutedPorts {
  const routes: PortRoute[] = [];
  const unrouted: UnroutedPort[] = [];
  for (const service of services) {
    for (const servicePort of service.spec.ports ?? []) {
      const route = routePort(pod, service, servicePort);
      if (typeof route === "string") unrouted.push({ service, servicePort, why: route });
      else routes.push(route);
    }
  }
  return { routes, unrouted };
}

/** Ports of a pod that no service leads to: those its containers declare, and those that are asked for by number. */
export function routeDeclaredPorts(pod: PodSpec, asked: readonly AskedPort[] = []): readonly PortRoute[] {
  const direct = { service: undefined, servicePort: undefined, headless: true } as const;
  const routes: PortRoute[] = pod.containers.flatMap(({ name, ports }) =>
    (ports ?? []).map((port) => ({
      ...direct,
      containerName: name,
      containerPort: port.containerPort,
      protocol: lowerProtocol(port.protocol),
      portName: port.name,
    })),
  );
  for (const { containerPort, protocol } of asked) {
    const known = routes.some((route) => route.containerPort === containerPort && route.protocol === protocol);
    const containerName = pod.containers[0]?.name;
    if (known || containerName === undefined) continue;
    routes.push({ ...direct, containerName, containerPort, protocol, portName: undefined });
  }
  return routes;
}

export interface AskedPort {
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
}

function routePort(pod: PodSpec, service: Service, servicePort: ServicePort): PortRoute | string {
  const protocol = lowerProtocol(servicePort.protocol);
  const target = targetOf(servicePort);
  const common = { service, servicePort, protocol, headless: service.spec.clusterIP === "None" };
  if (typeof target === "number") {
    const container = pod.containers.find((item) => declares(item, target, protocol)) ?? pod.containers[0];
    if (container === undefined) return "the pod has no containers";
    return { ...common, containerName: container.name, containerPort: target, portName: undefined };
  }
  const found = findNamedPort(pod, target, protocol);
  if (found === undefined) return `no container has a ${protocol} port named ${JSON.stringify(target)}`;
  return { ...common, containerName: found.container.name, containerPort: found.port, portName: target };
}

/** The name or number; a missing targetPort is the service's own port, and so is 0 (both exist in the field). */
function targetOf(servicePort: ServicePort): number | string {
  const { targetPort } = servicePort;
  if (targetPort === undefined || targetPort === 0 || targetPort === "") return servicePort.port;
  return typeof targetPort === "string" && /^\d+$/.test(targetPort) ? Number(targetPort) : targetPort;
}

function findNamedPort(
  pod: PodSpec,
  name: string,
  protocol: string,
): { readonly container: Container; readonly port: number } | undefined {
  const sidecars = (pod.initContainers ?? []).filter((container) => container.restartPolicy === "Always");
  for (const container of [...pod.containers, ...sidecars]) {
    const port = container.ports?.find((item) => item.name === name && lowerProtocol(item.protocol) === protocol);
    if (port !== undefined) return { container, port: port.containerPort };
  }
  return undefined;
}

function declares(container: Container, port: number, protocol: string): boolean {
  return (container.ports ?? []).some(
    (item) => item.containerPort === port && lowerProtocol(item.protocol) === protocol,
  );
}

export function lowerProtocol(protocol: string | undefined): "tcp" | "udp" | "sctp" {
  const lower = (protocol ?? "TCP").toLowerCase();
  return lower === "udp" || lower === "sctp" ? lower : "tcp";
}
