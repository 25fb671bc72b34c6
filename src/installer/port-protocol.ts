// Pure: whether a port speaks HTTP/1.1, as far as its services say so: by `appProtocol`, else by the ports' names in the
// usual form (`http`, `http-metrics`, `admin-http`). Where they say nothing, or not the same, the agent tells by the
// first bytes of each caller.
import type { PortRoute } from "#kube/service-ports.ts";

/** Values of `appProtocol`: those of Kubernetes itself, and those that everybody uses. */
const appProtocols: ReadonlyMap<string, boolean> = new Map(
  Object.entries({
    http: true,
    "kubernetes.io/ws": true,
    https: false,
    http2: false,
    h2c: false,
    "kubernetes.io/h2c": false,
    "kubernetes.io/wss": false,
    grpc: false,
    tls: false,
    tcp: false,
  }),
);

/** Undefined where only the first bytes can tell. */
export function speaksHttp(routes: readonly PortRoute[]): boolean | undefined {
  const said = new Set(routes.map(saidBy).filter((answer) => answer !== undefined));
  const [only] = said;
  return said.size === 1 ? only : undefined;
}

function saidBy({ servicePort, portName }: PortRoute): boolean | undefined {
  const { appProtocol } = servicePort;
  if (appProtocol !== undefined) return appProtocols.get(appProtocol.toLowerCase());
  return saidByName(servicePort.name) ?? saidByName(portName);
}

function saidByName(name: string | undefined): boolean | undefined {
  if (name === undefined) return undefined;
  if (/^(https|http2|grpc|tls)(-|$)|-(https|http2|grpc|tls)$/.test(name)) return false;
  return /^http(-|$)|-http$/.test(name) ? true : undefined;
}
