// Pure: which container port each `--port local[:service port]` means. Several services or ports that end at one
// container port are one choice; different container ports are a question to the user.
import { AppError } from "#base/error.ts";
import type { PodSpec, Service } from "./objects.ts";
import type { PortRoute } from "./service-ports.ts";
import { routeServicePorts } from "./service-ports.ts";

export interface ChosenPort {
  readonly localPort: number;
  readonly containerName: string;
  readonly containerPort: number;
  readonly protocol: "tcp";
  readonly serviceName: string;
  readonly serviceUid: string | undefined;
  readonly servicePort: number;
  readonly servicePortName: string | undefined;
}

/** One choice for each of `wanted`; `what` names the workload in errors. */
export function planPorts(
  pod: PodSpec,
  services: readonly Service[],
  wanted: readonly string[],
  what: string,
): readonly ChosenPort[] {
  const { routes, unrouted } = routeServicePorts(pod, services);
  const usable = routes.filter((route) => route.protocol === "tcp");
  if (usable.length === 0) {
    const first = unrouted[0];
    const why =
      first === undefined
        ? routes.length === 0
          ? "its services have no ports"
          : "its services have no TCP ports, and only TCP is intercepted"
        : `port ${first.servicePort.port} of service ${first.service.metadata.name ?? ""} leads nowhere: ${first.why}`;
    throw new AppError("not_interceptable", `${what} cannot be intercepted: ${why}`, {
      hint: "mend the Service's ports",
    });
  }
  const chosen = wanted.map((spec) => choosePort(usable, spec, what));
  for (const [index, port] of chosen.entries()) {
    const twin = chosen.slice(0, index).find((other) => other.containerPort === port.containerPort);
    if (twin !== undefined) {
      throw new AppError("usage", `--port names container port ${port.containerPort} of ${what} twice`, {
        hint: "give each service port once",
      });
    }
  }
  return chosen;
}

function choosePort(routes: readonly PortRoute[], spec: string, what: string): ChosenPort {
  const { localPort, identifier } = parsePort(spec);
  const matching = identifier === undefined ? routes : routes.filter((route) => matchesPort(route, identifier));
  const first = matching[0];
  if (first === undefined) {
    throw new AppError("not_found", `${what} has no service port ${JSON.stringify(identifier)}`, {
      hint: `choose one: ${listChoices(routes, localPort)}`,
    });
  }
  const targets = new Set(matching.map((route) => `${route.containerName}:${route.containerPort}`));
  if (targets.size > 1) {
    const oneService = new Set(matching.map((route) => route.service.metadata.name)).size === 1;
    throw new AppError("ambiguous", `${what} has several service ports: ${listChoices(matching, localPort)}`, {
      hint: oneService ? `choose one with --port ${localPort}:PORT` : "choose one with --service or --port LOCAL:PORT",
      fields: { ports: matching.map((route) => route.servicePort.name ?? route.servicePort.port) },
    });
  }
  return {
    localPort,
    containerName: first.containerName,
    containerPort: first.containerPort,
    protocol: "tcp",
    serviceName: first.service.metadata.name ?? "",
    serviceUid: first.service.metadata.uid,
    servicePort: first.servicePort.port,
    servicePortName: first.servicePort.name,
  };
}

/** `8000` or `8000:http` or `8000:80`. */
export function parsePort(spec: string): { readonly localPort: number; readonly identifier: string | undefined } {
  const match = /^(\d{1,5})(?::([a-zA-Z0-9-]+)(?:\/tcp)?)?$/i.exec(spec);
  const localPort = Number(match?.[1]);
  if (match === null || localPort < 1 || localPort > 65_535) {
    throw new AppError("usage", `--port ${JSON.stringify(spec)} is not LOCAL[:SERVICE-PORT]`, {
      hint: "expected e.g. --port 8000 or --port 8000:http",
    });
  }
  return { localPort, identifier: match[2] };
}

function matchesPort(route: PortRoute, identifier: string): boolean {
  return route.servicePort.name === identifier || String(route.servicePort.port) === identifier;
}

function listChoices(routes: readonly PortRoute[], localPort: number): string {
  return routes
    .map((route) => {
      const { name, port } = route.servicePort;
      const service = route.service.metadata.name ?? "";
      return `--port ${localPort}:${name ?? port} (service ${service}, ${port} to ${route.containerName}:${route.containerPort})`;
    })
    .join(", ");
}
