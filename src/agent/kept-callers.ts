// Passed connections in their callers' names (DESIGN 15): with NET_ADMIN the application sees the address and port of
// the caller, not the pod's. The agent's end is a transparent socket; what brings the answers back to it:
//
//   agent's end ──mark──► a conntrack zone of its own ──► lo ──► application
//   application ──answer, found by conntrack──► mark ──► `ip rule`: delivered here ──► lo ──► agent's end
//
// The zone is what lets the caller's own port be used again: in conntrack that connection exists, as the redirected one.
// Invariant: it is tried with a connection of our own before a caller depends on it; where that fails the pod's address
// is used as without NET_ADMIN, and the reason is told.
import { once } from "node:events";
import { Socket, createServer, isIPv6 } from "node:net";
import type { AddressInfo } from "node:net";
import type { Clock } from "#base/clock.ts";
import { deadline } from "#base/abort.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { MarkRoute } from "#kernel/mark-route-messages.ts";
import type { OwnedTable } from "#kernel/nftables.ts";
import type { HostPort, TransparentDial } from "#kernel/transparent-dial.ts";
import type { AgentPort, CallersOfPort } from "#wire/agent-api.ts";

/** chosen: unlikely to be anybody else's in a pod ("TELP"); service meshes use small numbers. */
const mark = 0x54454c50;
const zone = 0x5445;
const priority = 5445;
/** chosen: within one host a handshake takes microseconds, unless the application's backlog is full. */
const dialMs = 3000;
const trialMs = 1000;
/** Addresses of documentation: never a caller's, and routed like one. */
const trialCaller = { 4: "192.0.2.1", 6: "2001:db8::1" } as const;

type Family = 4 | 6;
type Dial = (dial: TransparentDial) => Promise<number>;

/** How the application can be dialled as its caller; a fake in tests. */
export interface CallerDialer {
  /** Why callers' addresses are not kept, undefined when they are. */
  readonly obstacle: string | undefined;
  /** Undefined when the pod's own address must do; rejects when the application refuses or the signal aborts. */
  connect(caller: HostPort, application: HostPort, signal: AbortSignal): Promise<Socket | undefined>;
}

export interface KeptCallersOptions {
  readonly podIps: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
}

export class KeptCallers implements CallerDialer, Disposable {
  readonly #options: KeptCallersOptions;
  readonly #families: ReadonlySet<Family>;
  #dial: Dial | undefined;
  #routes: Disposable | undefined;
  #obstacle: string | undefined;

  private constructor(options: KeptCallersOptions) {
    this.#options = options;
    this.#families = new Set(options.podIps.map(familyOf));
  }

  /** Adds what is needed to the table. Never rejects: what fails is the obstacle. */
  static async open(table: OwnedTable, options: KeptCallersOptions): Promise<KeptCallers> {
    const callers = new KeptCallers(options);
    try {
      await callers.#open(table);
      options.log.info("callers' addresses are kept");
    } catch (error) {
      callers.#close();
      callers.#obstacle = toAppError(error).message;
      options.log.warn("callers' addresses are not kept", { reason: callers.#obstacle });
    }
    return callers;
  }

  get obstacle(): string | undefined {
    return this.#obstacle;
  }

  async connect(caller: HostPort, application: HostPort, signal: AbortSignal): Promise<Socket | undefined> {
    const family = familyOf(caller.address);
    const ours = this.#options.podIps.includes(caller.address) || caller.address.includes("%");
    if (this.#dial === undefined || ours || family !== familyOf(application.address) || !this.#families.has(family)) {
      return undefined;
    }
    using limit = deadline(this.#options.clock, dialMs, "dialling the application as its caller", signal);
    try {
      return await this.#connectAs(this.#dial, caller, application, limit.signal);
    } catch (error) {
      signal.throwIfAborted();
      const failure = toAppError(error);
      if (failure.code === "refused") throw failure;
      this.#options.log.warn("caller's address not kept", { reason: failure.message });
      return undefined;
    }
  }

  /** The tables' chains go with the table; call this when it is gone. */
  [Symbol.dispose](): void {
    this.#close();
  }

  async #open(table: OwnedTable): Promise<void> {
    const [rules, { openMarkRoutes }, { dialTransparent }] = await Promise.all([
      import("#kernel/nft-rules.ts"),
      import("#kernel/mark-routes.ts"),
      import("#kernel/transparent-dial.ts"),
    ]);
    const zoneChain = { name: "caller-zone", type: "filter", hook: "output", priority: -300 } as const;
    const routeChain = { name: "caller-route", type: "route", hook: "output", priority: -150 } as const;
    table.addChain(zoneChain, [rules.ownZone({ mark, zone })]);
    table.addChain(routeChain, rules.markAnswers({ mark, zone }));
    const routes = [...this.#families].map((family): MarkRoute => ({ family, mark, table: mark, priority }));
    this.#routes = openMarkRoutes(routes);
    await Promise.all(this.#options.podIps.map((podIp) => this.#tryOut(dialTransparent, podIp)));
    this.#dial = dialTransparent;
  }

  #close(): void {
    this.#dial = undefined;
    const routes = this.#routes;
    this.#routes = undefined;
    try {
      routes?.[Symbol.dispose]();
    } catch (error) {
      // Nothing sets the mark any more, so what is left does nothing.
      this.#options.log.warn("route for marked packets not removed", { reason: toAppError(error).message });
    }
  }

  /** The caller's port too, unless this end of such a connection still lingers. */
  async #connectAs(dial: Dial, caller: HostPort, application: HostPort, signal: AbortSignal): Promise<Socket> {
    const request = { from: caller, to: application, mark, signal };
    let fd: number;
    try {
      fd = await dial(request);
    } catch (error) {
      if (toAppError(error).code !== "port_in_use") throw error;
      fd = await dial({ ...request, from: { ...caller, port: 0 } });
    }
    return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
  }

  /** One connection from a stranger's address to ourselves and back. */
  async #tryOut(dial: Dial, podIp: string): Promise<void> {
    const stranger = { address: trialCaller[familyOf(podIp)], port: 0 };
    using limit = deadline(this.#options.clock, trialMs, `a trial connection to ${podIp}`);
    const server = createServer((socket) => socket.on("error", () => undefined).end("ok"));
    try {
      server.listen(0, podIp);
      await once(server, "listening", { signal: limit.signal });
      const { port } = server.address() as AddressInfo;
      const arrived = once(server, "connection", { signal: limit.signal });
      arrived.catch(() => undefined); // has no reader when the dial fails
      const socket = await this.#connectAs(dial, stranger, { address: podIp, port }, limit.signal);
      socket.on("error", () => undefined);
      try {
        const [accepted] = (await arrived) as [Socket];
        if (accepted.remoteAddress !== stranger.address) {
          throw new AppError("unsupported", `the trial connection to ${podIp} came from ${accepted.remoteAddress}`);
        }
        await once(socket, "data", { signal: limit.signal });
      } finally {
        socket.destroy();
      }
    } catch (error) {
      limit.signal.throwIfAborted();
      throw error;
    } finally {
      server.close();
    }
  }
}

/** What the application sees on each port, as far as it is known: a redirect is tried out when it is first needed. */
export function describeCallers(
  ports: readonly AgentPort[],
  callers: CallerDialer | undefined,
): readonly CallersOfPort[] {
  return ports.flatMap(({ containerPort, protocol, takeover }) => {
    const port = { containerPort, protocol };
    if (takeover === "name") return [{ ...port, kept: false, reason: "the agent has no NET_ADMIN" }];
    if (protocol === "udp") return [{ ...port, kept: false, reason: "UDP" }];
    if (callers === undefined) return [];
    return [{ ...port, kept: callers.obstacle === undefined, reason: callers.obstacle ?? "" }];
  });
}

function familyOf(address: string): Family {
  return isIPv6(address) ? 6 : 4;
}
