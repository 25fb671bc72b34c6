// The connections that the agent passes to the application byte by byte: whoever began on one stays with the application
// until it ends. Those whose requests are decided one by one do not belong here.
import type { Socket } from "node:net";
import type { AgentPort } from "#wire/agent-api.ts";

export interface PassedConnection {
  readonly caller: Socket;
  readonly application: Socket;
}

export class PassedConnections {
  readonly #passed = new Map<AgentPort, Set<PassedConnection>>();

  /** Until the caller's end is closed. */
  track(port: AgentPort, connection: PassedConnection): void {
    if (connection.caller.destroyed) return;
    let ofPort = this.#passed.get(port);
    if (ofPort === undefined) this.#passed.set(port, (ofPort = new Set()));
    const { caller } = connection;
    ofPort.add(connection);
    caller.once("close", () => ofPort.delete(connection));
  }

  of(port: AgentPort): readonly PassedConnection[] {
    return [...(this.#passed.get(port) ?? [])];
  }
}
