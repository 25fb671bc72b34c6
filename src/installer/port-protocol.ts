// Pure: whether a port speaks HTTP (of any version), or TLS, as far as its services say so: by `appProtocol`, else by the
// names of the ports in the usual form (`http`, `http-metrics`, `admin-http`). Where they say nothing, or not the same,
// the agent tells by the first bytes of each caller.
import type { PortRoute } from "#kube/workloads/service-ports.ts";
import type { PodProbe } from "#wire/agent-api.ts";

/** Values of `appProtocol`: those of Kubernetes itself, and those that everybody uses. */
const appProtocols: ReadonlyMap<string, boolean> = new Map(
  Object.entries({
    http: true,
    "kubernetes.io/ws": true,
    https: false,
    http2: true,
    h2c: true,
    "kubernetes.io/h2c": true,
    "kubernetes.io/wss": false,
    grpc: true,
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
  const { appProtocol, name } = servicePort ?? {};
  if (appProtocol !== undefined) return appProtocols.get(appProtocol.toLowerCase());
  return saidByName(name) ?? saidByName(portName);
}

function saidByName(name: string | undefined): boolean | undefined {
  if (name === undefined) return undefined;
  if (/^(https|tls)(-|$)|-(https|tls)$/.test(name)) return false;
  return /^(http|http2|h2c|grpc)(-|$)|-(http|http2|h2c|grpc)$/.test(name) ? true : undefined;
}

const tlsProtocols = new Set(["https", "tls", "wss", "kubernetes.io/wss"]);
/** protocol: of HTTPS (RFC 9110 §4.2.2). */
const httpsPort = 443;

/** True where its services say so, and none of them something else; a service's port 443 says it unless more is said. */
export function speaksTls(routes: readonly PortRoute[]): boolean {
  const said = new Set(routes.map(saysTls).filter((answer) => answer !== undefined));
  return said.has(true) && !said.has(false);
}

/** What is known of a port where its services say nothing: whoever answers these probes speaks it. */
export function probesSay(probes: readonly PodProbe[]): "http" | "tls" | undefined {
  if (probes.some(({ by }) => by === "https")) return "tls";
  return probes.some(({ by }) => by === "http" || by === "grpc") ? "http" : undefined;
}

function saysTls({ servicePort, portName }: PortRoute): boolean | undefined {
  const { appProtocol, name, port } = servicePort ?? {};
  if (appProtocol !== undefined) return tlsProtocols.has(appProtocol.toLowerCase());
  return namesTls(name) ?? namesTls(portName) ?? (port === httpsPort ? true : undefined);
}

function namesTls(name: string | undefined): boolean | undefined {
  if (name === undefined) return undefined;
  if (/^(https|tls|wss)(-|$)|-(https|tls|wss)$/.test(name)) return true;
  return saidByName(name) === undefined ? undefined : false;
}
