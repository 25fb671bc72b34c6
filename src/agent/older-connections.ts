// Connections older than an intercept stay with the application (DESIGN 14): which they are, how many are left, and, when
// asked to, their end. There are two kinds: those that callers have with the application itself, from before the redirect,
// which only the kernel's socket table knows; and those that the agent passes byte by byte.
//
//   in force ──► snapshot ──► read again while there are any, each time: keep | close the idle | reset
//
// Invariants: the snapshot is taken in the very tick in which the redirect came into force, so that whatever is newer came
// through it; a connection whose other end is in this pod as well is never in it: neither loopback, nor a mesh's
// proxy, nor our own; a socket is known by its cookie, because a caller may use its port again.
import type { Clock, Timer } from "#base/clock.ts";
import { toAppError } from "#base/error.ts";
import type { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { ConnectionList, ConnectionQuery } from "#kernel/sock-diag.ts";
import { tcpState } from "#kernel/sock-diag-messages.ts";
import type { SocketEnd, TcpConnection } from "#kernel/sock-diag-messages.ts";
import type { AgentPort, OlderConnectionsOfPort } from "#wire/agent-api.ts";
import type { ExistingMode } from "#wire/manager-api.ts";
import { isIdle } from "./connection-idle.ts";
import { plainAddress } from "./inbound/app-addresses.ts";
import type { PassedConnection, PassedConnections } from "./passed-connections.ts";

/** The kernel's socket table; a fake in tests. */
export interface ConnectionTable {
  list(query: ConnectionQuery): ConnectionList;
  /** Throws at the first refusal. */
  destroy(connections: readonly TcpConnection[]): number;
  /** Why `destroy` cannot work here. */
  obstacle(): AppError | undefined;
}

export interface OlderConnectionsOptions {
  readonly ports: readonly AgentPort[];
  readonly podIps: readonly string[];
  readonly passed: PassedConnections;
  /** What becomes of the port's older connections; undefined while nobody intercepts it. */
  readonly modeOf: (port: AgentPort) => ExistingMode | undefined;
  /** Whether the port's new connections come to the agent. */
  readonly isInForce: (port: AgentPort) => boolean;
  /** The kernel's but in tests. */
  readonly openTable?: () => Promise<ConnectionTable>;
  /** Processor time used so far; this process's but in tests. */
  readonly processorMs?: () => number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: a person watches them count down. */
const countMs = 2000;
/** chosen: what became idle is closed a second later at most. */
const drainMs = 1000;
/**
 * chosen: a read takes at most this part of a processor, however large the kernel's table is. By the clock a read of a
 * few connections would seem long wherever others are busy, and the next one would come seconds late.
 */
const maxShare = 1 / 50;
/** chosen: a caller that does not answer the end of its connection by then is cut off. */
const closingMs = 5000;
/** chosen: ended in one go; the rest follows at once, when others had their turn. */
const maxEnded = 1024;
const restMs = 10;
/** protocol: so many addresses are named, to be told apart over all pods; the others are a number only. */
const maxAddresses = 64;

interface Watched {
  readonly port: AgentPort;
  mode: ExistingMode;
  cookies: ReadonlySet<string>;
  passed: readonly PassedConnection[];
  /** Since when the orderly end of a passed connection is awaited. */
  readonly closing: Map<PassedConnection, number>;
  count: number;
  callers: ReadonlySet<string>;
  reason: string | undefined;
}

export class OlderConnections implements Disposable {
  readonly #options: OlderConnectionsOptions;
  readonly #ports: readonly AgentPort[];
  readonly #podIps: ReadonlySet<string>;
  readonly #watched = new Map<AgentPort, Watched>();
  #table: ConnectionTable | undefined;
  #next: Timer | undefined;
  #told = "[]";
  #listener: (() => void) | undefined;
  #disposed = false;

  constructor(options: OlderConnectionsOptions) {
    this.#options = options;
    this.#ports = options.ports.filter((port) => port.protocol === "tcp");
    this.#podIps = new Set(options.podIps);
  }

  /** Runs a change of take-overs and looks at the outcome before anything else can happen. Rejects as `change` does. */
  async during(change: () => Promise<void>): Promise<void> {
    await this.#prepare();
    try {
      await change();
    } finally {
      this.#update();
    }
  }

  describe(): readonly OlderConnectionsOfPort[] {
    return [...this.#watched.values()].map(({ port, count, callers, reason }) => ({
      containerPort: port.containerPort,
      protocol: port.protocol,
      connections: count,
      callers: callers.size,
      addresses: [...callers].slice(0, maxAddresses),
      ...(reason === undefined ? {} : { reason }),
    }));
  }

  /** Called when `describe` has changed; a second apart at least, but after a change of take-overs. */
  onChange(listener: () => void): void {
    this.#listener = listener;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#next?.[Symbol.dispose]();
    this.#watched.clear();
  }

  /** Opened before a take-over comes into force, so that its snapshot need not wait. Most agents never need it. */
  async #prepare(): Promise<void> {
    const { modeOf, passed, openTable = openKernelTable, log } = this.#options;
    const isNeeded = (port: AgentPort): boolean =>
      modeOf(port) !== undefined && (port.takeover === "redirect" || passed.of(port).length > 0);
    if (this.#table !== undefined || !this.#ports.some(isNeeded)) return;
    try {
      this.#table = await openTable();
    } catch (error) {
      log.warn("older connections not counted", { reason: toAppError(error).message });
    }
  }

  #update(): void {
    if (this.#disposed) return;
    const { isInForce, modeOf } = this.#options;
    for (const port of this.#ports) {
      const mode = isInForce(port) ? modeOf(port) : undefined;
      const watched = this.#watched.get(port);
      if (mode === undefined) this.#watched.delete(port);
      else if (watched === undefined) this.#watched.set(port, this.#begin(port, mode));
      else watched.mode = mode;
    }
    this.#read();
  }

  #begin(port: AgentPort, mode: ExistingMode): Watched {
    const passed = this.#options.passed.of(port);
    const watched: Watched = {
      port,
      mode,
      passed,
      cookies: new Set(),
      closing: new Map(),
      count: 0,
      callers: new Set(),
      reason: undefined,
    };
    if (port.takeover === "redirect") {
      this.#attempt(watched, (table) => (watched.cookies = this.#snapshot(table, port)));
    }
    return watched;
  }

  /** What callers have with the application itself. */
  #snapshot(table: ConnectionTable, { containerPort }: AgentPort): ReadonlySet<string> {
    // A handshake that has begun was not redirected either.
    const states = [tcpState.established, tcpState.synReceived, tcpState.closeWait];
    const { connections } = table.list({ localPort: containerPort, states });
    const candidates = connections.filter(({ local }) => this.#podIps.has(local.address));
    if (candidates.length === 0) return new Set();
    const otherEnds = table.list({ remotePort: containerPort, states: [] }).connections;
    const within = new Set(otherEnds.map(({ local, remote }) => pairOf(remote, local)));
    return new Set(
      candidates.filter(({ local, remote }) => !within.has(pairOf(local, remote))).map(({ cookie }) => cookie),
    );
  }

  #read(): void {
    const { clock, processorMs = ownProcessorMs } = this.#options;
    this.#next?.[Symbol.dispose]();
    const startMs = processorMs();
    let waitMs = Infinity;
    for (const watched of this.#watched.values()) {
      if (watched.cookies.size === 0 && watched.passed.length === 0) continue;
      const rest = this.#attempt(watched, (table) => this.#step(watched, table)) ?? false;
      if (rest) waitMs = restMs;
      else if (watched.count > 0) waitMs = Math.min(waitMs, watched.mode === "keep" ? countMs : drainMs);
    }
    if (waitMs !== Infinity && !this.#disposed) {
      const leastMs = (processorMs() - startMs) / maxShare;
      this.#next = clock.after(Math.max(waitMs, leastMs), () => this.#read()).unref();
    }
    this.#tell();
  }

  /** Ends what shall end, and counts what is left. True when there is more to end at once. */
  #step(watched: Watched, table: ConnectionTable): boolean {
    watched.reason = undefined;
    const direct = this.#endDirect(watched, table, listDirect(watched, table));
    const ended = this.#endPassed(watched, table);
    watched.passed = watched.passed.filter(({ caller }) => !caller.destroyed);
    watched.count = direct.left.length + watched.passed.length;
    watched.callers = new Set([
      ...direct.left.map(({ remote }) => remote.address),
      ...watched.passed.map(({ caller }) => plainAddress(caller.remoteAddress ?? "")),
    ]);
    if (direct.left.length === 0) watched.cookies = new Set();
    return direct.rest || ended;
  }

  #endDirect(
    watched: Watched,
    table: ConnectionTable,
    connections: readonly TcpConnection[],
  ): { readonly left: readonly TcpConnection[]; readonly rest: boolean } {
    const chosen = watched.mode === "keep" ? [] : connections.filter(watched.mode === "reset" ? () => true : isIdle);
    if (connections.length > 0 && watched.mode !== "keep") {
      const obstacle = table.obstacle();
      if (obstacle !== undefined) {
        watched.reason = `they cannot be closed from outside the application: ${obstacle.message}`;
        return { left: connections, rest: false };
      }
    }
    if (chosen.length === 0) return { left: connections, rest: false };
    const now = chosen.slice(0, maxEnded);
    const ended = table.destroy(now);
    this.#options.log.info("older connections ended", { port: watched.port.containerPort, count: ended });
    const gone = new Set(now);
    return { left: connections.filter((connection) => !gone.has(connection)), rest: chosen.length > now.length };
  }

  /** Connections of our own end in order: the caller reads an end, not a reset. True when there is more to end. */
  #endPassed(watched: Watched, table: ConnectionTable): boolean {
    const { passed, mode, port, closing } = watched;
    if (mode === "keep" || passed.length === 0) return false;
    if (mode === "reset") {
      for (const { caller, application } of passed.slice(0, maxEnded)) {
        caller.resetAndDestroy();
        application.resetAndDestroy();
      }
      return passed.length > maxEnded;
    }
    const nowMs = this.#options.clock.now();
    const { connections } = table.list({
      localPort: port.agentPort,
      states: [tcpState.established, tcpState.closeWait],
    });
    const idle = new Set(connections.filter(isIdle).map(({ local, remote }) => pairOf(local, remote)));
    for (const connection of passed) {
      const { caller, application } = connection;
      const sinceMs = closing.get(connection);
      if (sinceMs !== undefined) {
        if (nowMs - sinceMs >= closingMs) caller.resetAndDestroy();
      } else if (
        caller.writableLength === 0 &&
        application.writableLength === 0 &&
        idle.has(pairOfSocket(connection))
      ) {
        closing.set(connection, nowMs);
        application.end();
        caller.end();
      }
    }
    return false;
  }

  /** Nothing here may keep an intercept from working: what fails is told as the reason. */
  #attempt<T>(watched: Watched, work: (table: ConnectionTable) => T): T | undefined {
    try {
      if (this.#table !== undefined) return work(this.#table);
      watched.reason = "the traffic-agent cannot read the kernel's table of connections";
    } catch (error) {
      watched.reason = toAppError(error).message;
      this.#options.log.warn("older connections not looked at", { reason: watched.reason });
    }
    return undefined;
  }

  #tell(): void {
    const now = JSON.stringify(this.describe());
    if (now === this.#told) return;
    this.#told = now;
    this.#listener?.();
  }
}

function listDirect({ cookies, port }: Watched, table: ConnectionTable): readonly TcpConnection[] {
  if (cookies.size === 0) return [];
  const states = [tcpState.established, tcpState.closeWait];
  const { connections } = table.list({ localPort: port.containerPort, states });
  return connections.filter(({ cookie }) => cookies.has(cookie));
}

function pairOf(local: SocketEnd, remote: SocketEnd): string {
  return `${local.address} ${local.port} ${remote.address} ${remote.port}`;
}

function pairOfSocket({ caller }: PassedConnection): string {
  const { localAddress = "", localPort = 0, remoteAddress = "", remotePort = 0 } = caller;
  const local = { address: plainAddress(localAddress), port: localPort };
  return pairOf(local, { address: plainAddress(remoteAddress), port: remotePort });
}

function ownProcessorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function openKernelTable(): Promise<ConnectionTable> {
  const { destroyConnections, destroyObstacle, listConnections } = await import("#kernel/sock-diag.ts");
  listConnections({ localPort: 1, states: [] }); // it tells now whether there is such a table
  let tried: { readonly obstacle: AppError | undefined } | undefined;
  const obstacle = (): AppError | undefined => (tried ??= { obstacle: destroyObstacle() }).obstacle;
  return { list: listConnections, destroy: destroyConnections, obstacle };
}
