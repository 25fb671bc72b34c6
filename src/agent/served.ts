// Which intercept has which of the pod's ports, now. Several managers may be connected (each user's own); the first that
// takes a port keeps it until it lets go.
// Invariant: only intercepts of links that stand are in here; a link's end takes them out in the same tick.
import type { AgentPort, ServedIntercept } from "#wire/agent-api.ts";
import type { ExistingMode } from "#wire/manager-api.ts";
import type { OpenRequest } from "#wire/open.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";

/** A link to a manager, as a connection sees it. */
export interface InboundOpener {
  open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream>;
  /** The laptop's process did not take a connection, which then went to the application. */
  countRefused(interceptId: string): void;
}

/** An active intercept of one port. */
export interface Taken {
  readonly interceptId: string;
  readonly opener: InboundOpener;
  /** What becomes of connections that are older. */
  readonly existing: ExistingMode;
  /** Who answers when the laptop's process does not take a connection. */
  readonly onRefused: "app" | "fail";
}

export interface Refused {
  readonly id: string;
  readonly message: string;
}

type Protocol = AgentPort["protocol"];

export class ServedIntercepts {
  readonly #ports: readonly AgentPort[];
  readonly #taken = new Map<string, Taken & { readonly client: string }>();
  readonly #listeners = new Set<() => void>();

  constructor(ports: readonly AgentPort[]) {
    this.#ports = ports;
  }

  find(containerPort: number, protocol: Protocol): Taken | undefined {
    return this.#taken.get(keyOf(containerPort, protocol));
  }
  get size(): number {
    return this.#taken.size;
  }
  /** Whose intercepts these are. */
  get clients(): readonly string[] {
    return [...new Set([...this.#taken.values()].map((taken) => taken.client))];
  }
  /** Called after each change, in the same tick. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Replaces what this link serves; what cannot be served is left out and returned. */
  set(opener: InboundOpener, intercepts: readonly ServedIntercept[]): readonly Refused[] {
    this.#release(opener);
    const refused: Refused[] = [];
    for (const intercept of intercepts) {
      const message = this.#obstacle(intercept);
      if (message !== undefined) {
        refused.push({ id: intercept.id, message });
        continue;
      }
      for (const { containerPort, protocol } of intercept.ports) {
        this.#taken.set(keyOf(containerPort, protocol), {
          interceptId: intercept.id,
          opener,
          existing: intercept.existing ?? "keep",
          onRefused: intercept.onRefused ?? "app",
          client: intercept.client,
        });
      }
    }
    this.#changed();
    return refused;
  }

  clear(opener: InboundOpener): void {
    if (this.#release(opener)) this.#changed();
  }

  #obstacle(intercept: ServedIntercept): string | undefined {
    for (const { containerPort, protocol } of intercept.ports) {
      if (!this.#ports.some((port) => port.containerPort === containerPort && port.protocol === protocol)) {
        const own = this.#ports.map((port) => `${port.containerPort}/${port.protocol}`).join(", ");
        return `port ${containerPort}/${protocol} is not taken over by the pod's agent, which has ${own || "none"}`;
      }
      const other = this.#taken.get(keyOf(containerPort, protocol));
      if (other !== undefined) {
        return `port ${containerPort}/${protocol} is intercepted by ${other.client} through another traffic-manager`;
      }
    }
    return undefined;
  }

  #release(opener: InboundOpener): boolean {
    const before = this.#taken.size;
    for (const [key, taken] of this.#taken) if (taken.opener === opener) this.#taken.delete(key);
    return this.#taken.size !== before;
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

function keyOf(containerPort: number, protocol: Protocol): string {
  return `${protocol}/${containerPort}`;
}
