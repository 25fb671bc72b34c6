// Who has no business here is refused and logged, and costs little. Published holes of the original: any pod could drive
// another's session; agent ports were open to the cluster.
import { once } from "node:events";
import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { connectPinned, createIdentity } from "#tunnel/identity.ts";
import type { Identity } from "#tunnel/identity.ts";
import { openRpc } from "#tunnel/rpc.ts";
import { openSession } from "#tunnel/session.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { agentToManagerApi, managerToAgentApi } from "#wire/agent-api.ts";
import type { WorkloadRef } from "#wire/manager-api.ts";
import type { Manager } from "#manager/manager.ts";
import {
  LogLines,
  TestLaptop,
  ask,
  helloOf,
  introduce,
  namedServer,
  never,
  testAgent,
  testManager,
  tick,
  workload,
} from "./harness.ts";

const strangersLogged = "stranger refused on the agents' port";

/** Resolves with all the bytes that came before the far end closed. */
async function untilClosed(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => undefined);
  if (!socket.closed) await once(socket, "close");
  return Buffer.concat(chunks);
}

/** An agent that lies: speaks the protocol with a key of its own. */
async function falseAgent(
  manager: Manager,
  identity: Identity,
  introducedBy: readonly string[],
  of: WorkloadRef = workload,
): Promise<TunnelSession> {
  const transport = await connectPinned({
    identity,
    host: "127.0.0.1",
    port: manager.agentPort,
    expectedFingerprint: manager.fingerprint,
    signal: never,
  });
  const options = { transport, hello: helloOf("agent"), clock: systemClock, log: silentLogger, signal: never };
  const session = await openSession({ ...options, role: "opener" });
  const stream = await session.open({ kind: "rpc", api: "agent" }, never);
  const rpc = openRpc({
    stream,
    calls: agentToManagerApi,
    serves: { api: managerToAgentApi, handlers: { "intercepts.set": () => ({}) } },
    log: silentLogger,
  });
  const config = { workload: of, ports: [], containerName: "app" };
  const facts = { podName: "liar", podUid: "liar", podIps: ["10.0.0.9"], version: "1", config };
  await rpc.call("arrive", { ...facts, introducedBy: [...introducedBy] }, never);
  return session;
}

describe("the agents' port", () => {
  test("turns away a TLS client without a key, one with another key, and plain HTTP", async () => {
    const log = new LogLines();
    await using manager = await testManager({ log: log.logger });
    const plain = connect(manager.agentPort, "127.0.0.1");
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect((await untilClosed(plain)).toString()).not.toContain("HTTP/1");
    const keyless = connectTls({ port: manager.agentPort, host: "127.0.0.1", rejectUnauthorized: false });
    await untilClosed(keyless);
    await expect(falseAgent(manager, createIdentity("stranger"), ["x"])).rejects.toMatchObject({ code: "link_lost" });
    while (log.with(strangersLogged).length === 0) await tick();
    expect(manager.registry.list()).toEqual([]);
  });

  test("logs a flood of strangers in few lines", async () => {
    const log = new LogLines();
    await using manager = await testManager({ log: log.logger });
    for (let index = 0; index < 50; index += 1) {
      const socket = connect(manager.agentPort, "127.0.0.1");
      socket.write("x".repeat(100));
      await untilClosed(socket);
    }
    expect(log.with(strangersLogged).length).toBeLessThan(5);
  });

  test("refuses an agent whose laptop is gone, and one that no manager knows the laptop of", async () => {
    await using manager = await testManager();
    const identity = createIdentity("agent");
    const laptop = await TestLaptop.connect(manager);
    const agents = [{ fingerprint: identity.fingerprint, podUid: "u", podName: "p", workload }];
    await laptop.rpc.call("agents.trust", { agents }, never);
    const session = await falseAgent(manager, identity, [laptop.sessionId]);
    session.destroy();
    laptop.transport.destroy();
    await laptop.session.closed;
    while (manager.registry.isTrusted(identity.fingerprint)) await tick();
    await expect(falseAgent(manager, identity, [laptop.sessionId])).rejects.toMatchObject({ code: "link_lost" });
  });

  test("gives a laptop nothing of an agent whose key it only read somewhere", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    await using laptop = await TestLaptop.connect(manager);
    await using thief = await TestLaptop.connect(manager, "eve@laptop");
    const agents = [{ fingerprint: agent.fingerprint, podUid: "stolen", podName: "stolen", workload }];
    // Vouched for before the rightful laptop comes, and again afterwards.
    await thief.rpc.call("agents.trust", { agents }, never);
    await laptop.introduce(manager, agent);
    await thief.rpc.call("agents.trust", { agents }, never);
    const stolen = await thief.intercept("hello", app.port);
    expect(stolen).toMatchObject({ state: "waiting", pods: [] });
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
    expect(thief.arrived).toBe(0);
    // Once it has been at the agent itself, it may.
    await thief.introduce(manager, agent);
    await thief.until(([own]) => own?.state === "active");
  });

  test("serves two laptops that introduced the same agent, whoever came first", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    await using first = await TestLaptop.connect(manager, "ada@laptop");
    await first.introduce(manager, agent);
    await using second = await TestLaptop.connect(manager, "bob@laptop");
    await second.introduce(manager, agent);
    await first.rpc.call("depart", {}, never);
    const info = await second.intercept("hello", app.port);
    expect(info).toMatchObject({ state: "active", pods: [{ name: "hello-1" }] });
  });

  test("refuses an agent of another workload than its laptop vouched for, and logs it", async () => {
    const log = new LogLines();
    await using manager = await testManager({ log: log.logger });
    await using laptop = await TestLaptop.connect(manager);
    const identity = createIdentity("agent");
    const agents = [{ fingerprint: identity.fingerprint, podUid: "u", podName: "p", workload }];
    await laptop.rpc.call("agents.trust", { agents }, never);
    const refused = falseAgent(manager, identity, [laptop.sessionId], { ...workload, name: "other" });
    await expect(refused).rejects.toMatchObject({
      code: "denied",
      message:
        "the agent of pod p is configured for Deployment other in namespace shop, expected Deployment hello in namespace shop",
    });
    expect(log.with("agent not admitted")).toHaveLength(1);
  });

  test("gives a known agent nothing but the intercepts it was introduced for", async () => {
    await using manager = await testManager();
    await using laptop = await TestLaptop.connect(manager);
    const victim = await laptop.intercept("hello", 8080);
    const identity = createIdentity("agent");
    await using other = await TestLaptop.connect(manager, "eve@laptop");
    const agents = [{ fingerprint: identity.fingerprint, podUid: "u", podName: "p", workload }];
    await other.rpc.call("agents.trust", { agents }, never);
    const session = await falseAgent(manager, identity, [other.sessionId, laptop.sessionId]);
    const inbound = {
      kind: "inbound",
      protocol: "tcp",
      interceptId: victim.id,
      containerPort: 8080,
      source: { address: "10.0.0.1", port: 1 },
      podName: "p",
    } as const;
    await expect(session.open(inbound, never)).rejects.toMatchObject({ code: "denied" });
    await expect(session.open({ ...inbound, interceptId: "none" }, never)).rejects.toMatchObject({ code: "not_found" });
    const tcp = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } } as const;
    await expect(session.open(tcp, never)).rejects.toMatchObject({ code: "denied" });
    expect(laptop.arrived).toBe(0);
    session.destroy();
  });
});

describe("the laptops' port", () => {
  test("answers nothing to HTTP, and does nothing for a link that has not arrived", async () => {
    await using manager = await testManager();
    const http = connect(manager.laptopPort, "127.0.0.1");
    http.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    expect((await untilClosed(http)).length).toBe(0);
    const transport = connect({ port: manager.laptopPort, host: "127.0.0.1", noDelay: true });
    const options = { transport, hello: helloOf("laptop"), clock: systemClock, log: silentLogger, signal: never };
    const session = await openSession({ ...options, role: "opener" });
    const target = { address: "10.0.0.1", port: 80 };
    await expect(session.open({ kind: "tcp", target }, never)).rejects.toMatchObject({ code: "denied" });
    await expect(session.open({ kind: "rpc", api: "agent" }, never)).rejects.toMatchObject({ code: "denied" });
    session.destroy();
  });

  test("lets one session not touch another's", async () => {
    await using manager = await testManager();
    await using laptop = await TestLaptop.connect(manager);
    await using other = await TestLaptop.connect(manager, "eve@laptop");
    const { id } = await laptop.intercept("hello", 8080);
    await expect(other.remove(id)).rejects.toMatchObject({ code: "intercept_not_found" });
    expect((await other.rpc.call("intercept.list", {}, never)).intercepts).toHaveLength(1);
  });

  test("shows no control characters of a laptop's name to others", async () => {
    await using manager = await testManager();
    await using laptop = await TestLaptop.connect(manager, "ada\u001b[2J@laptop\n");
    const info = await laptop.intercept("hello", 8080);
    expect(info.client).toBe("ada?[2J@laptop?");
  });
});

describe("an agent", () => {
  test("refuses a manager with another key than it was introduced to, and says so", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    await using laptop = await TestLaptop.connect(manager);
    const agents = [{ fingerprint: agent.fingerprint, podUid: "u", podName: "p", workload }];
    await laptop.rpc.call("agents.trust", { agents }, never);
    const { sessionId } = laptop;
    await expect(introduce(agent, manager, { sessionId, fingerprint: "0".repeat(64) })).rejects.toMatchObject({
      code: "denied",
      message: expect.stringContaining("expected key 0000"),
    });
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
  }, 15_000);

  test("speaks no HTTP on its introduction port, and only readiness on its health port", async () => {
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    const http = connect(agent.introductionPort, "127.0.0.1");
    http.write("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    expect((await untilClosed(http)).length).toBe(0);
    const at = (path: string) => fetch(`http://127.0.0.1:${agent.healthPort}${path}`);
    expect((await at("/ready")).status).toBe(200);
    expect((await at("/environment")).status).toBe(404);
    expect((await fetch(`http://127.0.0.1:${agent.healthPort}/ready`, { method: "POST" })).status).toBe(404);
  });
});
