// A pod for the tests on a pod-network.ts: an application on a numeric port, the agent that redirects it, and, to keep
// the tests small, the manager and the laptop as well.
import { execFileSync } from "node:child_process";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { readdirSync } from "node:fs";
import { startAgent } from "#agent/agent.ts";
import type { Agent } from "#agent/agent.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { ExistingMode, InterceptInfo } from "#wire/manager-api.ts";
import { never as signal, testManager, TestLaptop, workload } from "#test/flow/manager/harness.ts";
import { answerCalls } from "./process-calls.ts";

const podIp = "198.51.100.2";
const port = 8080;
const slowMs = 9000;

let application: ReturnType<typeof createServer>;
let agent: Agent;
let laptop: TestLaptop;
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

interface PodOptions {
  /** The application is another process's. */
  readonly agentOnly?: boolean;
  readonly podIps?: readonly string[];
  readonly takeover?: "name" | "redirect";
}

async function start({ agentOnly = false, podIps = [podIp], takeover = "redirect" }: PodOptions = {}): Promise<void> {
  application = createServer({ noDelay: true }, (socket) => answerLines(socket, "application"));
  if (!agentOnly) await new Promise<void>((resolve) => application.listen(port, podIp, resolve));
  const agentPort = {
    agentPort: 9900,
    containerPort: port,
    containerName: "app",
    protocol: "tcp",
    takeover,
  } as const;
  agent = await startAgent({
    clock: systemClock,
    log: silentLogger,
    redirectLingerMs: 500,
    settings: {
      config: { workload, containerName: "app", ports: [agentPort] },
      podName: "hello-1",
      podUid: "uid-1",
      podIps,
      logLevel: "silent",
      drainMs: 1000,
      ports: { introduction: 0, health: 0 },
      doorName: "telepresence-test",
    },
  });
  const manager = await testManager();
  laptop = await TestLaptop.connect(manager);
  laptop.onIncoming = (incoming) => {
    if (laptopRefuses) incoming.reject("refused", "nothing listens here");
    else answerLines(incoming.accept() as unknown as Socket, "laptop");
  };
  await laptop.introduce(manager, agent);
}

export const podCalls = {
  start,
  attach: async (existing: ExistingMode = "keep"): Promise<string> => {
    const ports = [{ containerPort: port, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 1 } as const];
    const spec = { name: "hello", workload, containerName: "app", ports, existing };
    let info: InterceptInfo | undefined = await laptop.rpc.call("intercept.create", { spec }, signal);
    interceptId = info.id;
    // The manager answers after 2 s even if the agent is slower than that, as it is on a machine with much to do.
    while (info?.state === "waiting") {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const { intercepts } = await laptop.rpc.call("intercept.list", {}, signal);
      info = intercepts.find(({ id }) => id === interceptId);
    }
    return info?.state ?? "gone";
  },
  detach: async (): Promise<void> => {
    await laptop.rpc.call("intercept.remove", { id: interceptId }, signal);
  },
  /** Connections are passed to the application although the redirect is on. */
  refuse: (refuses: boolean): void => {
    laptopRefuses = refuses;
  },
  callerAddress: async (): Promise<unknown> => {
    const { intercepts } = await laptop.rpc.call("intercept.list", {}, signal);
    return intercepts[0]?.callerAddress;
  },
  older: async (): Promise<unknown> => {
    const { intercepts } = await laptop.rpc.call("intercept.list", {}, signal);
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
