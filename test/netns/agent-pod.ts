// A pod for agent-redirect.test.ts and caller-address.test.ts, in a network namespace of its own: an application on a numeric port, the agent that
// redirects it, and, to keep the test small, the manager and the laptop as well.
import { execFileSync } from "node:child_process";
import { createServer, connect } from "node:net";
import type { Socket } from "node:net";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { startAgent } from "#agent/agent.ts";
import type { Agent } from "#agent/agent.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startManager } from "#manager/manager.ts";
import type { Manager } from "#manager/manager.ts";
import { openRpc } from "#tunnel/rpc.ts";
import type { Rpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import { protocolVersions } from "#wire/hello.ts";
import { introductionApi } from "#wire/introduction-api.ts";
import { managerApi } from "#wire/manager-api.ts";
import type { ExistingMode, InterceptInfo } from "#wire/manager-api.ts";
import { answerCalls } from "./process-calls.ts";

const podIp = "198.51.100.2";
const port = 8080;
const workload = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
const common = { clock: systemClock, log: silentLogger };
const slowMs = 9000;
const signal = new AbortController().signal;
const hello = { protocol: protocolVersions, software: "test", role: "laptop", features: [] } as const;

let application: ReturnType<typeof createServer>;
let agent: Agent;
let manager: Manager;
let api: Rpc<typeof managerApi>;
let interceptId = "";
let laptopRefuses = false;

/** Each line is answered with the name of who got it; the line `slow` after a while. */
function answerLines(socket: Socket, name: string): void {
  socket.on("error", () => undefined);
  socket.on("end", () => socket.end());
  socket.on("data", (bytes: Buffer) => {
    const text = bytes.toString();
    if (text === "slow\n") setTimeout(() => socket.write(`${name}\n`), slowMs);
    else socket.write(`${name}\n`.repeat(text.split("\n").length - 1));
  });
}

async function openApi(at: number): Promise<Awaited<ReturnType<typeof openSession>>> {
  const transport = connect(at, "127.0.0.1");
  return await openSession({ ...common, transport, hello: { ...hello, features: [] }, role: "opener", signal });
}

interface PodOptions {
  /** The application is another process's. */
  readonly agentOnly?: boolean;
  readonly podIps?: readonly string[];
  readonly takeover?: "name" | "redirect";
}

async function start({ agentOnly = false, podIps = [podIp], takeover = "redirect" }: PodOptions = {}): Promise<void> {
  application = createServer({ noDelay: true }, (socket) => answerLines(socket, "application"));
  if (!agentOnly) await new Promise<void>((resolve) => application.listen(port, podIp, resolve));
  manager = await startManager({
    ...common,
    config: {
      podName: "traffic-manager",
      namespace: "telepresence",
      podIps: ["127.0.0.1"],
      nodeIps: [],
      allowNodes: false,
      allowRanges: [],
      denyRanges: [],
      apiServiceHost: undefined,
      resolvConfPath: join(import.meta.dirname, "fixtures", "resolv.conf"),
      logLevel: "silent",
      ports: { laptop: 0, agent: 0, health: 0 },
    },
  });
  const agentPort = {
    agentPort: 9900,
    containerPort: port,
    containerName: "app",
    protocol: "tcp",
    takeover,
  } as const;
  agent = await startAgent({
    ...common,
    redirectLingerMs: 500,
    settings: {
      config: { workload, containerName: "app", ports: [agentPort] },
      podName: "hello-1",
      podUid: "uid-1",
      podIps,
      logLevel: "silent",
      drainMs: 1000,
      ports: { introduction: 0, health: 0 },
    },
  });
  const session = await openApi(manager.laptopPort);
  session.onIncoming((incoming) => {
    if (laptopRefuses) incoming.reject("refused", "nothing listens here");
    else answerLines(incoming.accept() as unknown as Socket, "laptop");
  });
  api = openRpc({
    stream: await session.open({ kind: "rpc", api: "manager" }, signal),
    calls: managerApi,
    log: silentLogger,
  });
  const { sessionId } = await api.call(
    "arrive",
    { client: "ada@laptop", installId: "1", version: "1", namespace: "shop" },
    signal,
  );
  const { fingerprint } = agent;
  await api.call("agents.trust", { agents: [{ fingerprint, podUid: "uid-1", podName: "hello-1", workload }] }, signal);
  const toAgent = await openApi(agent.introductionPort);
  const introduction = openRpc({
    stream: await toAgent.open({ kind: "rpc", api: "introduction" }, signal),
    calls: introductionApi,
    log: silentLogger,
  });
  const address = { podIps: ["127.0.0.1"], port: manager.agentPort, fingerprint: manager.fingerprint, namespace: "x" };
  await introduction.call("introduce", { manager: address, sessionId }, signal);
  toAgent.destroy();
}

export const podCalls = {
  start,
  attach: async (existing: ExistingMode = "keep"): Promise<string> => {
    const ports = [{ containerPort: port, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 1 } as const];
    const spec = { name: "hello", workload, containerName: "app", ports, existing };
    let info: InterceptInfo | undefined = await api.call("intercept.create", { spec }, signal);
    interceptId = info.id;
    // The manager answers after 2 s even if the agent is slower than that, as it is on a machine with much to do.
    while (info?.state === "waiting") {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const { intercepts } = await api.call("intercept.list", {}, signal);
      info = intercepts.find(({ id }) => id === interceptId);
    }
    return info?.state ?? "gone";
  },
  detach: async (): Promise<void> => {
    await api.call("intercept.remove", { id: interceptId }, signal);
  },
  /** Connections are passed to the application although the redirect is on. */
  refuse: (refuses: boolean): void => {
    laptopRefuses = refuses;
  },
  callerAddress: async (): Promise<unknown> => {
    const { intercepts } = await api.call("intercept.list", {}, signal);
    return intercepts[0]?.callerAddress;
  },
  older: async (): Promise<unknown> => {
    const { intercepts } = await api.call("intercept.list", {}, signal);
    return intercepts[0]?.olderConnections;
  },
  /** In order, as at SIGTERM. */
  endAgent: async (): Promise<void> => {
    await agent[Symbol.asyncDispose]();
  },
  ruleset: (): string => execFileSync("nft", ["list", "ruleset"], { encoding: "utf8" }),
  descriptors: (): number => readdirSync("/proc/self/fd").length,
  connections: (): number => agent.openConnections,
};

answerCalls(podCalls);
