// Connections that went by a port's filters because nobody could read requests in them: a filter that never matches shall
// not be silent. Counted only while the port has filters, or wiretaps for which TLS is read.
import type { UnreadConnectionsOfPort, AgentPort } from "#wire/agent-api.ts";
import type { ServedIntercepts } from "./served.ts";

/** Spoke TLS, and why it was not read; or something that is not HTTP. */
export type Unread = { readonly tls: string } | "other";

/** protocol: bounds of the notification. */
const maxCount = 1_000_000_000;
const maxReasonLength = 1000;

export class UnreadConnections {
  readonly #served: ServedIntercepts;
  readonly #counts = new Map<AgentPort, UnreadConnectionsOfPort>();
  readonly #listeners = new Set<() => void>();

  constructor(served: ServedIntercepts) {
    this.#served = served;
    served.onChange(() => {
      for (const port of this.#counts.keys()) if (!served.isRead(port)) this.#counts.delete(port);
    });
  }

  count(port: AgentPort, what: Unread): void {
    if (what === "other" ? !this.#served.isFiltered(port) : !this.#served.isRead(port)) return;
    const { containerPort, protocol } = port;
    const { tls, other, reason } = this.#counts.get(port) ?? { tls: 0, other: 0, reason: undefined };
    const why = what === "other" ? reason : what.tls.slice(0, maxReasonLength);
    this.#counts.set(port, {
      containerPort,
      protocol,
      tls: Math.min(tls + (what === "other" ? 0 : 1), maxCount),
      other: Math.min(other + (what === "other" ? 1 : 0), maxCount),
      ...(why === undefined ? {} : { reason: why }),
    });
    for (const listener of this.#listeners) listener();
  }

  describe(): readonly UnreadConnectionsOfPort[] {
    return [...this.#counts.values()];
  }

  /** Called after each count. */
  onChange(listener: () => void): void {
    this.#listeners.add(listener);
  }
}
