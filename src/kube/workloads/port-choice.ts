// Pure: which container port each `--port local[:service port[/protocol]]` means. Several services or ports that end at
// one container port are one choice; different container ports are a question to the user. Where no service leads to
// the pods, the ports are those of the containers.
import { AppError } from "#base/error.ts";
import type { PodSpec, Service } from "#kube/objects.ts";
import type { TakenRoute } from "./service-ports.ts";
import { canBeTaken, routeDeclaredPorts, routeServicePorts } from "./service-ports.ts";

export interface ChosenPort {
  readonly localPort: number;
  readonly containerName: string;
  readonly containerPort: number;
  readonly protocol: "tcp" | "udp";
  /** Undefined where no service leads to the port, as are the three below. */
  readonly serviceName: string | undefined;
  readonly serviceUid: string | undefined;
  readonly servicePort: number | undefined;
  readonly servicePortName: string | undefined;
}

/** One choice for each of `wanted`; `what` names the workload in errors. */
export function planPorts(
  pod: PodSpec,
  services: readonly Service[],
  wanted: readonly string[],
  what: string,
): readonly ChosenPort[] {
  const parsed = wanted.map((spec) => parsePort(spec));
  const usable = services.length === 0 ? listDeclared(pod, parsed, what) : listRoutes(pod, services, what);
  const chosen = parsed.map((port) => choosePort(usable, port, what));
  for (const [index, port] of chosen.entries()) {
    const twin = chosen.slice(0, index).find((other) => isSame(other, port));
    if (twin !== undefined) {
      throw new AppError("usage", `--port names container port ${port.containerPort} of ${what} twice`, {
        hint: "give each service port once",
      });
    }
  }
  return chosen;
}

/** Every port of one container, to the same ports of the laptop; none where nothing leads to it. */
export function planAllPorts(pod: PodSpec, services: readonly Service[], containerName: string): readonly ChosenPort[] {
  const routes = services.length === 0 ? routeDeclaredPorts(pod) : routeServicePorts(pod, services).routes;
  const own = routes.filter(canBeTaken).filter((route) => route.containerName === containerName);
  const chosen = own.map((route) => toChosen(route, route.containerPort));
  return chosen.filter((port, index) => chosen.findIndex((other) => isSame(other, port)) === index);
}

/** Services that lead to a chosen port and are not the one that was chosen, a sentence for each. */
export function describeAffected(
  pod: PodSpec,
  services: readonly Service[],
  chosen: readonly ChosenPort[],
): readonly string[] {
  const routes = routeServicePorts(pod, services).routes.filter(canBeTaken);
  return chosen.flatMap((port) => {
    const others = routes.filter(
      ({ service, ...route }) => isSame(route, port) && service?.metadata.name !== port.serviceName,
    );
    const names = [...new Set(others.map(({ service, servicePort }) => `${nameOf(service)}:${servicePort?.port}`))];
    if (names.length === 0) return [];
    const [is, who] = names.length === 1 ? ["service", "its"] : ["services", "their"];
    return [`port ${port.containerPort} also serves ${is} ${names.join(", ")}: ${who} callers are intercepted too`];
  });
}

function listRoutes(pod: PodSpec, services: readonly Service[], what: string): readonly TakenRoute[] {
  const { routes, unrouted } = routeServicePorts(pod, services);
  const usable = routes.filter(canBeTaken);
  if (usable.length > 0) return usable;
  const first = unrouted[0];
  const why =
    first === undefined
      ? routes.length === 0
        ? "its services have no ports"
        : "its services have no TCP or UDP ports, and no others are intercepted"
      : `port ${first.servicePort.port} of service ${nameOf(first.service)} leads nowhere: ${first.why}`;
  throw new AppError("not_interceptable", `${what} cannot be intercepted: ${why}`, {
    hint: "mend the Service's ports",
  });
}

function listDeclared(pod: PodSpec, parsed: readonly ParsedPort[], what: string): readonly TakenRoute[] {
  const asked = parsed.flatMap(({ identifier, protocol = "tcp" }) =>
    identifier !== undefined && /^\d+$/.test(identifier) ? [{ containerPort: Number(identifier), protocol }] : [],
  );
  const usable = routeDeclaredPorts(pod, asked).filter(canBeTaken);
  if (usable.length > 0) return usable;
  throw new AppError("not_interceptable", `${what} has no service, and its containers declare no ports`, {
    hint: `say which port with --port ${parsed[0]?.localPort ?? 8080}:PORT, or create a Service that selects its pods`,
  });
}

function choosePort(routes: readonly TakenRoute[], { localPort, identifier, protocol }: ParsedPort, what: string) {
  const named = identifier === undefined ? routes : routes.filter((route) => matchesPort(route, identifier));
  const matching = ofProtocol(named, protocol);
  const first = matching[0];
  if (first === undefined) {
    const sought = JSON.stringify(`${identifier ?? ""}${protocol === undefined ? "" : `/${protocol}`}`);
    const kind = routes[0]?.service === undefined ? "port" : "service port";
    throw new AppError("not_found", `${what} has no ${kind} ${sought}`, {
      hint: `choose one: ${listChoices(routes, localPort)}`,
    });
  }
  const targets = new Set(matching.map((route) => `${route.containerName}:${route.containerPort}/${route.protocol}`));
  if (targets.size > 1) {
    const oneService = new Set(matching.map((route) => route.service?.metadata.name)).size === 1;
    const kind = first.service === undefined ? "ports" : "service ports";
    throw new AppError("ambiguous", `${what} has several ${kind}: ${listChoices(matching, localPort)}`, {
      hint: oneService ? `choose one with --port ${localPort}:PORT` : "choose one with --service or --port LOCAL:PORT",
      fields: { ports: matching.map(identify) },
    });
  }
  return toChosen(first, localPort);
}

function toChosen({ service, servicePort, ...route }: TakenRoute, localPort: number): ChosenPort {
  return {
    localPort,
    containerName: route.containerName,
    containerPort: route.containerPort,
    protocol: route.protocol,
    serviceName: service?.metadata.name,
    serviceUid: service?.metadata.uid,
    servicePort: servicePort?.port,
    servicePortName: servicePort?.name,
  };
}

/** TCP where nothing is said and there is any: a name server has both on one port. */
function ofProtocol(routes: readonly TakenRoute[], wanted: "tcp" | "udp" | undefined): readonly TakenRoute[] {
  const protocol = wanted ?? (routes.some((route) => route.protocol === "tcp") ? "tcp" : "udp");
  return routes.filter((route) => route.protocol === protocol);
}

export interface ParsedPort {
  readonly localPort: number;
  readonly identifier: string | undefined;
  readonly protocol: "tcp" | "udp" | undefined;
}

/** `8000`, `8000:http`, `8000:80`, or `5353:53/udp`. */
export function parsePort(spec: string): ParsedPort {
  const match = /^(\d{1,5})(?::([a-zA-Z0-9-]+)(?:\/(tcp|udp))?)?$/i.exec(spec);
  const localPort = Number(match?.[1]);
  if (match === null || localPort < 1 || localPort > 65_535) {
    throw new AppError("usage", `--port ${JSON.stringify(spec)} is not LOCAL[:SERVICE-PORT]`, {
      hint: "expected e.g. --port 8000, --port 8000:http or --port 5353:53/udp",
    });
  }
  return { localPort, identifier: match[2], protocol: match[3]?.toLowerCase() as ParsedPort["protocol"] };
}

function matchesPort({ servicePort, portName, containerPort }: TakenRoute, identifier: string): boolean {
  if (servicePort === undefined) return portName === identifier || String(containerPort) === identifier;
  return servicePort.name === identifier || String(servicePort.port) === identifier;
}

function identify({ servicePort, portName, containerPort }: TakenRoute): string | number {
  return servicePort === undefined ? (portName ?? containerPort) : (servicePort.name ?? servicePort.port);
}

function listChoices(routes: readonly TakenRoute[], localPort: number): string {
  return routes
    .map((route) => {
      const { service, servicePort, containerName, containerPort, protocol } = route;
      const choice = `--port ${localPort}:${identify(route)}${protocol === "udp" ? "/udp" : ""}`;
      if (servicePort === undefined) return `${choice} (${containerPort} of container ${containerName})`;
      return `${choice} (service ${nameOf(service)}, ${servicePort.port} to ${containerName}:${containerPort})`;
    })
    .join(", ");
}

function isSame(a: PortOfPod, b: PortOfPod): boolean {
  return a.containerPort === b.containerPort && a.protocol === b.protocol;
}
type PortOfPod = Pick<ChosenPort, "containerPort" | "protocol">;

function nameOf(service: Service | undefined): string {
  return service?.metadata.name ?? "";
}
