// The kubelet's probes of one taken-over port: how they are told from other callers, and who answers them. They ask how
// the pod is, so the application answers unless its intercepts say otherwise: a breakpoint in the laptop's process must
// have no pod restarted.
// Invariant: the agent answers by itself only what the pod declares as a probe of this very port; who merely says to be
// the kubelet learns nothing by that, and does nothing that he could not do without.
import type { AskedRequest } from "#agent/decisions.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { AgentPort, PodProbe } from "#wire/agent-api.ts";
import type { ProbeMode } from "#wire/manager-api.ts";

/** Kubelet, over HTTP or gRPC, and the program that probes gRPC for older ones. */
const proberAgent = /^(?:kube-probe\/|grpc[-_]health[-_]probe)/;
/** protocol: of gRPC's health checks. */
const healthCheck = "/grpc.health.v1.Health/Check";

export class PortProbes {
  readonly #port: AgentPort;
  readonly #declared: readonly PodProbe[];
  readonly #served: Pick<ServedIntercepts, "of">;

  constructor(port: AgentPort, declared: readonly PodProbe[], served: Pick<ServedIntercepts, "of">) {
    this.#port = port;
    this.#declared = declared.filter(({ containerPort }) => containerPort === port.containerPort);
    this.#served = served;
  }

  /** Of several wishes the one that hurts the pod least. */
  get mode(): ProbeMode {
    const modes = new Set(this.#served.of(this.#port).map(({ probes }) => probes));
    if (modes.has("agent")) return "agent";
    return modes.has("laptop") ? "laptop" : "app";
  }
  /** It opens connections and closes them without a word. */
  get comesSilently(): boolean {
    return this.#declared.some(({ by }) => by === "tcp");
  }
  get comesInTls(): boolean {
    return this.#declared.some(({ by }) => by === "https");
  }

  /** The agent answers this request by itself. */
  isAgents(request: AskedRequest): boolean {
    return isProbe(request) && this.mode === "agent" && this.#declared.some((probe) => isOf(probe, request));
  }
  /** The intercepts that may take a probe, in their order. */
  get takers(): readonly Taken[] {
    if (this.mode !== "laptop") return [];
    return this.#served.of(this.#port).filter(({ probes }) => probes === "laptop");
  }
}

/** Kubelet asks how the pod is, not the laptop. */
export function isProbe({ headers }: AskedRequest): boolean {
  return headers.some(({ name, value }) => name === "user-agent" && proberAgent.test(value));
}

/** gRPC's message is not read: what the pod declares of it is one service's name. */
export function isHealthCheck({ method, target }: AskedRequest): boolean {
  return method === "POST" && target === healthCheck;
}

function isOf({ by, path }: PodProbe, request: AskedRequest): boolean {
  if (by === "grpc") return isHealthCheck(request);
  if (by === "tcp" || request.method !== "GET") return false;
  return request.target === targetOf(path ?? "/");
}

/** As the kubelet sends a path: made absolute, and escaped where it has to be. */
function targetOf(path: string): string {
  const url = URL.parse(path.startsWith("/") ? path : `/${path}`, "http://pod");
  return url === null ? path : `${url.pathname}${url.search}`;
}
