// The ports of one attachment's `--to-pod`: taken on the laptop's 127.0.0.1 before anything is touched, led to the
// attachment's pod when it has one, given back when it ends. Each connection goes to the pod that counts at its start.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { isAgentPort } from "#wire/agent-api.ts";
import type { Endpoint } from "#wire/open.ts";
import { formatPodPort, type PodPort } from "#wire/pod-port.ts";
import { listenTcp } from "./tcp-port.ts";
import { listenUdp } from "./udp-port.ts";

/** How pods are reached. */
export interface PodDialer {
  readonly openPodPort: (namespace: string, podName: string, port: number, signal: AbortSignal) => Promise<Duplex>;
  readonly openUdp: (target: Endpoint, signal: AbortSignal) => Promise<TunnelStream>;
}

/** Whose ports they are. */
export interface PodPlace {
  readonly namespace: string;
  readonly pod: () => { readonly name: string; readonly ip?: string | undefined } | undefined;
}

export interface PodPortsOptions {
  readonly dialer: PodDialer;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Only here: a port of a pod's loopback is nobody's but this laptop's. */
const loopback = "127.0.0.1";

export class PodPorts implements AsyncDisposable {
  readonly ports: readonly PodPort[];
  readonly #options: PodPortsOptions;
  readonly #scope: Scope;
  #place: PodPlace | undefined;

  private constructor(ports: readonly PodPort[], options: PodPortsOptions) {
    this.ports = ports;
    this.#options = options;
    this.#scope = new Scope(options.log);
  }

  /** All of them, or an error that names the one that is taken. */
  static async open(ports: readonly PodPort[], options: PodPortsOptions): Promise<PodPorts> {
    const opened = new PodPorts(ports, options);
    try {
      for (const port of ports) await opened.#listen(port);
      return opened;
    } catch (error) {
      await opened[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** From now on they lead there; before, connections are reset. */
  lead(place: PodPlace): void {
    this.#place = place;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#scope[Symbol.asyncDispose]();
  }

  async #listen(port: PodPort): Promise<void> {
    if (isAgentPort(port.port)) {
      throw new AppError(
        "usage",
        `port ${port.port} is the traffic-agent's own, expected one of the application's pod`,
      );
    }
    const { clock, log, dialer } = this.#options;
    const { signal } = this.#scope;
    const at = { address: loopback, port: port.port };
    try {
      if (port.protocol === "tcp") {
        const dial = (): Promise<Duplex> => {
          const { namespace, name } = this.#pod();
          return dialer.openPodPort(namespace, name, port.port, signal);
        };
        this.#scope.use(await listenTcp(at, { dial, clock, log }));
      } else {
        const dial = (): Promise<TunnelStream> => dialer.openUdp({ address: this.#pod().ip, port: port.port }, signal);
        this.#scope.use(await listenUdp(at, { dial, log }));
      }
    } catch (error) {
      throw whyTaken(port, error);
    }
  }

  #pod(): { readonly namespace: string; readonly name: string; readonly ip: string } {
    const pod = this.#place?.pod();
    if (this.#place === undefined || pod === undefined) throw new AppError("unreachable", "no pod runs now");
    const { name, ip = "" } = pod;
    return { namespace: this.#place.namespace, name, ip };
  }
}

/** Runs `use` with the ports taken; they are given back when it fails. */
export async function holdPodPorts<T>(
  ports: readonly PodPort[],
  options: PodPortsOptions,
  use: (held: PodPorts) => Promise<T>,
): Promise<T> {
  const held = await PodPorts.open(ports, options);
  try {
    return await use(held);
  } catch (error) {
    await held[Symbol.asyncDispose]();
    throw error;
  }
}

function whyTaken(port: PodPort, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  const place = `${loopback}:${formatPodPort(port)}`;
  if (code === "EADDRINUSE") {
    return new AppError("port_in_use", `${place} is in use by another program of this laptop`, {
      cause: error,
      hint: `end that program, or leave out --to-pod ${port.port}; \`telepresence status\` shows ports of your own`,
    });
  }
  if (code !== "EACCES") return error;
  return new AppError("denied", `${place} may not be listened on by an ordinary user`, { cause: error });
}
