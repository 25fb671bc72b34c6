// Pure: how a Service's ports lead to a pod's containers, in the rules the endpoints controller uses. A named
// targetPort is looked up by name and protocol over the containers in order; a number needs no declaration.
import type { Container, PodSpec, Service, ServicePort } from "./objects.ts";

export interface PortRoute {
  readonly service: Service;
  readonly servicePort: ServicePort;
  readonly containerName: string;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp" | "sctp";
  /** Set when the Service finds the container by this name. */
  readonly portName: string | undefined;
  /** Callers of a headless service dial the pod's port itself. */
  readonly headless: boolean;
}

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
