// A cluster in one process, over real TCP on loopback: a manager, agents with an application behind each, and laptops.
//
//   caller ──► agent port ──► agent ──TLS──► manager ──► laptop (this file) ──► process
//                               └──► application
import { randomUUID } from "node:crypto";
import { createServer, connect } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { startAgent } from "#agent/agent.ts";
import type { Agent } from "#agent/agent.ts";
import type { AgentSettings } from "#agent/config.ts";
import type { RedirectTable } from "#agent/redirect.ts";
import { systemClock } from "#base/clock.ts";
import type { Clock } from "#base/clock.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import type { Logger } from "#base/log.ts";
import { startManager } from "#manager/manager.ts";
import type { Manager } from "#manager/manager.ts";
import type { Lookup } from "#manager/cloud/dial-name.ts";
import type { ManagerConfig } from "#manager/config.ts";
import type { DialGuard } from "#egress/guard.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import type { AgentPort, CertificateVolume, PodProbe } from "#wire/agent-api.ts";
import { protocolVersions } from "#wire/hello.ts";
import type { Hello } from "#wire/hello.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import { managerApi, managerNotifications } from "#wire/manager-api.ts";
import type { InterceptInfo, InterceptSpec, WorkloadRef } from "#wire/manager-api.ts";

export const workload: WorkloadRef = { kind: "Deployment", name: "hello", namespace: "shop" };
export const never: AbortSignal = new AbortController().signal;

export function helloOf(role: Hello["role"]): Hello {
  return { protocol: protocolVersions, software: "test", role, features: [] };
}

/** Log lines of every part, for tests that ask what was logged. */
export class LogLines {
  readonly lines: Record<string, unknown>[] = [];
  readonly logger: Logger = createLogger("debug", (line) => {
    this.lines.push(JSON.parse(line) as Record<string, unknown>);
  });
  with(message: string): readonly Record<string, unknown>[] {
    return this.lines.filter((line) => line["msg"] === message);
  }
}

export const anything: DialGuard = { check: () => undefined };

export async function testManager(
  options: {
    guard?: DialGuard;
    lookup?: Lookup;
    log?: Logger;
    config?: Partial<ManagerConfig>;
    dnsPort?: number;
    idleOwnerMs?: number;
    clock?: Clock;
  } = {},
): Promise<Manager> {
  return await startManager({
    config: {
      podName: "traffic-manager-0",
      namespace: "telepresence",
      podIps: ["127.0.0.1"],
      nodeIps: [],
      allowNodes: false,
      allowRanges: [],
      denyRanges: [],
      apiServiceHost: undefined,
      resolvConfPath: join(import.meta.dirname, "resolv.conf"),
      logLevel: "silent",
      ports: { laptop: 0, agent: 0, health: 0, direct: 0 },
      ...options.config,
    },
    clock: options.clock ?? systemClock,
    log: options.log ?? silentLogger,
    ...(options.guard === undefined ? {} : { guard: options.guard }),
    ...(options.lookup === undefined ? {} : { lookup: options.lookup }),
    ...(options.dnsPort === undefined ? {} : { dnsPort: options.dnsPort }),
    ...(options.idleOwnerMs === undefined ? {} : { idleOwnerMs: options.idleOwnerMs }),
  });
}

/** One pod: its agent, in front of the given application port. */
export interface TestAgentOptions {
  readonly number?: number;
  readonly containerPort: number;
  readonly protocol?: "tcp" | "udp";
  readonly takeover?: AgentPort["takeover"];
  readonly http?: boolean | undefined;
  /** The port speaks TLS by its service's word. */
  readonly tls?: boolean | undefined;
  readonly certificateVolumes?: readonly CertificateVolume[];
  /** Of the port, as the pod declares them. */
  readonly probes?: readonly Omit<PodProbe, "containerPort">[];
  readonly podIps?: readonly string[];
  readonly log?: Logger;
  readonly openTable?: () => Promise<RedirectTable>;
  /** Where programs in its container would ask; nobody does when left out. */
  readonly doorName?: string;
  readonly maxIdleSessions?: number;
  readonly clock?: Clock | undefined;
}

/** For what nobody is to wait for: any wait lasts until the test's own time limit. */
export const endlessClock: Clock = {
  ...systemClock,
  after: (delayMs, callback) => systemClock.after(1000 * delayMs, callback).unref(),
};

export async function testAgent(options: TestAgentOptions): Promise<Agent> {
  const number = options.number ?? 1;
  const settings: AgentSettings = {
    config: {
      workload,
      containerName: "app",
      certificateVolumes: [...(options.certificateVolumes ?? [])],
      probes: (options.probes ?? []).map((probe) => ({ ...probe, containerPort: options.containerPort })),
      ports: [
        {
          agentPort: 0,
          containerPort: options.containerPort,
          containerName: "app",
          protocol: options.protocol ?? "tcp",
          takeover: options.takeover ?? "name",
          ...(options.http === undefined ? {} : { http: options.http }),
          ...(options.tls === undefined ? {} : { tls: options.tls }),
        },
      ],
    },
    podName: `hello-${number}`,
    podUid: `uid-${number}`,
    podIps: options.podIps ?? ["127.0.0.1"],
    logLevel: "silent",
    drainMs: 1000,
    ports: { introduction: 0, health: 0 },
    doorName: options.doorName ?? `telepresence-test-${randomUUID()}`,
  };
  return await startAgent({
    settings,
    clock: options.clock ?? systemClock,
    log: options.log ?? silentLogger,
    lateMs: Number.POSITIVE_INFINITY,
    maxIdleSessions: options.maxIdleSessions,
    openTable: options.openTable,
  });
}

/** A laptop: its session to the manager, and the process that its intercepts lead to. */
export class TestLaptop implements AsyncDisposable {
  readonly session: TunnelSession;
  readonly rpc: Rpc<typeof managerApi, typeof managerNotifications>;
  readonly transport: Socket;
  readonly lostAgents: string[] = [];
  intercepts: readonly InterceptInfo[] = [];
  onIncoming: (incoming: IncomingStream) => void = (incoming) => incoming.reject("refused", "nothing listens");
  sessionId = "";
  arrived = 0;
  #changed = Promise.withResolvers<void>();

  private constructor(session: TunnelSession, rpc: TestLaptop["rpc"], transport: Socket) {
    this.session = session;
    this.rpc = rpc;
    this.transport = transport;
    session.onIncoming((incoming) => {
      this.arrived += 1;
      this.onIncoming(incoming);
    });
    rpc.onNotification("intercepts.changed", ({ intercepts }) => {
      this.intercepts = intercepts;
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    });
    rpc.onNotification("agent.lost", ({ podUid }) => this.lostAgents.push(podUid));
  }

  static async connect(manager: Manager, client = "ada@laptop"): Promise<TestLaptop> {
    const transport = connect({ port: manager.laptopPort, host: "127.0.0.1", noDelay: true });
    transport.on("error", () => undefined);
    const session = await openSession({
      transport,
      hello: helloOf("laptop"),
      role: "opener",
      clock: systemClock,
      log: silentLogger,
      signal: never,
    });
    const stream = await session.open({ kind: "rpc", api: "manager" }, never);
    const rpc = openRpc({ stream, calls: managerApi, receives: managerNotifications, log: silentLogger });
    const laptop = new TestLaptop(session, rpc, transport);
    const arrival = { client, installId: `id-${client}`, version: "0.1.0", namespace: "shop" };
    ({ sessionId: laptop.sessionId } = await rpc.call("arrive", arrival, never));
    return laptop;
  }

  /** Trusts the agent and introduces it to the manager, as the daemon does. */
  async introduce(manager: Manager, agent: Agent, number = 1): Promise<void> {
    const agents = [{ fingerprint: agent.fingerprint, podUid: `uid-${number}`, podName: `hello-${number}`, workload }];
    await this.rpc.call("agents.trust", { agents }, never);
    await introduce(agent, manager, { sessionId: this.sessionId });
  }

  async intercept(
    name: string,
    containerPort: number,
    protocol: "tcp" | "udp" = "tcp",
    more: Partial<InterceptSpec> = {},
  ): Promise<InterceptInfo> {
    const spec = { ...specOf(name, containerPort, protocol), ...more };
    return await this.rpc.call("intercept.create", { spec }, never);
  }
  remove(id: string): Promise<unknown> {
    return this.rpc.call("intercept.remove", { id }, never);
  }

  /** Streams go to this process. */
  serveWith(port: number): void {
    this.onIncoming = (incoming) => {
      const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
      socket.once("error", () => incoming.reject("refused", "the process does not listen"));
      socket.once("connect", () => {
        socket.removeAllListeners("error");
        joinDuplex(incoming.accept(), socket);
      });
    };
  }

  async until(condition: (intercepts: readonly InterceptInfo[]) => boolean): Promise<void> {
    while (!condition(this.intercepts)) await this.#changed.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.session.destroy();
    await this.session.closed;
  }
}

export function specOf(name: string, containerPort: number, protocol: "tcp" | "udp" = "tcp"): InterceptSpec {
  const ports = [{ containerPort, protocol, targetHost: "127.0.0.1", targetPort: 1 }];
  return { name, workload, containerName: "app", ports };
}

export async function introduce(
  agent: Agent,
  manager: Manager,
  of: { readonly sessionId: string; readonly fingerprint?: string; readonly canarySecret?: string },
): Promise<void> {
  const { fingerprint = manager.fingerprint, ...who } = of;
  const target = { podIps: ["127.0.0.1"], port: manager.agentPort, fingerprint, namespace: "telepresence" };
  await askAgent(agent, (rpc) => rpc.call("introduce", { manager: target, ...who }, never));
}

/** As a laptop that may port-forward to the agent's pod. */
export async function askAgent<T>(agent: Agent, ask: (rpc: Rpc<typeof introductionApi>) => Promise<T>): Promise<T> {
  const transport = connect({ port: agent.introductionPort, host: "127.0.0.1", noDelay: true });
  transport.on("error", () => undefined);
  const options = { transport, hello: helloOf("laptop"), clock: systemClock, log: silentLogger, signal: never };
  const session = await openSession({ ...options, role: "opener" });
  try {
    const stream = await session.open({ kind: "rpc", api: "introduction" }, never);
    const rpc = openRpc({ stream, calls: introductionApi, log: silentLogger });
    return await ask(rpc);
  } finally {
    session.destroy();
  }
}

/** A TCP server that is gone when disposed, connections and all. */
export async function tcpServer(
  onConnection: (socket: Socket) => void,
  host = "127.0.0.1",
): Promise<AsyncDisposable & { readonly port: number; readonly connections: Set<Socket>; readonly server: Server }> {
  const connections = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    connections.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => connections.delete(socket));
    onConnection(socket);
  });
  server.listen(0, host);
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    connections,
    server,
    [Symbol.asyncDispose]: async () => {
      for (const socket of connections) socket.destroy();
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers `<name>:<what it got>` when the caller has ended, then ends. */
export function namedServer(name: string, host?: string): ReturnType<typeof tcpServer> {
  return tcpServer((socket) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk) => chunks.push(chunk as Buffer));
    socket.on("end", () => socket.end(`${name}:${Buffer.concat(chunks).toString()}`));
  }, host);
}

/** Sends, half-closes, reads everything. */
export async function ask(port: number, text: string, host = "127.0.0.1"): Promise<string> {
  const socket = connect({ port, host, allowHalfOpen: true, noDelay: true });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const chunks: Buffer[] = [];
  socket.on("data", (chunk) => chunks.push(chunk as Buffer));
  socket.on("end", () => resolve(Buffer.concat(chunks).toString()));
  socket.on("error", reject);
  socket.end(text);
  return await promise;
}

export function tick(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** xorshift32: small, seeded, good enough to choose bytes and moments. */
export function randomFrom(start: number): (below: number) => number {
  let state = start | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
