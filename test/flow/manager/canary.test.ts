// Canaries over a real manager, agents and loopback connections: who answers them, and that nobody else hears of them.
//
//   laptop's canary ──► manager ──dial──► agent's port ──► answered there
//                                  └────► something else, where the agent is by-passed
import { createHmac } from "node:crypto";
import { connect } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { Agent } from "#agent/agent.ts";
import { FakeClock } from "#base/clock.fake.ts";
import type { Clock } from "#base/clock.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { Changes } from "#daemon/intercepts/active-wait.ts";
import { CallerPath } from "#daemon/intercepts/caller-path.ts";
import type { CallerPathOptions } from "#daemon/intercepts/caller-path.ts";
import type { IntroducedAgent } from "#daemon/intercepts/introductions.ts";
import { openConversation } from "#daemon/link/laptop-session.ts";
import type { ManagerConnection } from "#daemon/link/manager-link.ts";
import type { DialGuard } from "#egress/guard.ts";
import type { Manager } from "#manager/manager.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { askedText, canaryPath, encodeCanaryRequest } from "#wire/canary.ts";
import type { CallerPathState, InterceptSpec } from "#wire/manager-api.ts";
import {
  TestLaptop,
  anything,
  ask,
  introduce,
  namedServer,
  never,
  tcpServer,
  endlessClock,
  testAgent,
  testManager,
  tick,
  workload,
} from "./harness.ts";
import { httpServer } from "./http-ends.ts";

const secret = "5e".repeat(32);

let stack = new AsyncDisposableStack();
afterEach(async () => {
  const ending = stack;
  stack = new AsyncDisposableStack();
  await ending.disposeAsync();
});

interface LabOptions {
  readonly application: { readonly port: number };
  readonly http?: boolean;
  readonly guard?: DialGuard;
  readonly clock?: Clock;
  readonly agentClock?: Clock;
  readonly spec?: Partial<InterceptSpec>;
  /** What canaries find in place of the agent. */
  readonly instead?: number;
  readonly path?: Partial<CallerPathOptions>;
}

interface Lab {
  readonly manager: Manager;
  readonly agent: Agent;
  readonly agentPort: number;
  readonly laptop: TestLaptop;
  readonly path: CallerPath;
  readonly changes: Changes;
  /** The link that the path is told of. */
  readonly arrival: { sessionId: string };
  /** Those that the path is told of. */
  readonly agents: IntroducedAgent[];
}

async function lab(options: LabOptions): Promise<Lab> {
  const { application, http, instead } = options;
  const manager = stack.use(await testManager({ guard: options.guard ?? anything }));
  const agent = stack.use(await testAgent({ containerPort: application.port, http, clock: options.agentClock }));
  const laptop = stack.use(await TestLaptop.connect(manager));
  const trusted = [{ fingerprint: agent.fingerprint, podUid: "uid-1", podName: "hello-1", workload }];
  await laptop.rpc.call("agents.trust", { agents: trusted }, never);
  await introduce(agent, manager, { sessionId: laptop.sessionId, canarySecret: secret });
  await laptop.intercept("hello", application.port, "tcp", options.spec);
  await laptop.until(([info]) => info?.state === "active");
  const agentPort = agent.agentPorts[0] ?? 0;
  const port: AgentPort = {
    agentPort: instead ?? agentPort,
    containerPort: application.port,
    containerName: "app",
    protocol: "tcp",
    takeover: "name",
    ...(http === undefined ? {} : { http }),
  };
  const agents: IntroducedAgent[] = [
    {
      fingerprint: agent.fingerprint,
      podName: "hello-1",
      podUid: "uid-1",
      podIps: ["127.0.0.1"],
      ports: [port],
      canaries: true,
    },
  ];
  const clock = options.clock ?? systemClock;
  const changes = new Changes();
  const arrival = { sessionId: laptop.sessionId };
  const connection = { session: laptop.session, arrival };
  const path = stack.use(
    new CallerPath({
      name: "hello",
      namespace: "shop",
      ports: [{ containerPort: application.port, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 1 }],
      services: [],
      agents: () => agents,
      expect: async () => {
        const transport = connect({
          port: agent.introductionPort,
          host: "127.0.0.1",
          allowHalfOpen: true,
          noDelay: true,
        });
        transport.on("error", () => undefined);
        const parts = { api: "introduction", clock: systemClock, log: silentLogger } as const;
        using conversation = await openConversation(transport, parts, never);
        return (await conversation.rpc.call("canary.expect", {}, never)).ports;
      },
      access: {
        findServicePods: () => Promise.resolve(["uid-1"]),
        explainByPass: () => Promise.resolve("Istio takes the port before the agent"),
      },
      manager: () => connection as unknown as ManagerConnection,
      changes,
      onVerdict: () => undefined,
      secret,
      clock,
      log: silentLogger,
      ...options.path,
    }),
  );
  return { manager, agent, agentPort, laptop, path, changes, arrival, agents };
}

/** Without its age. */
function known(path: CallerPath): Omit<CallerPathState, "ageMs"> | undefined {
  if (path.state === undefined) return undefined;
  const { ageMs, ...rest } = path.state;
  expect(ageMs).toBeGreaterThanOrEqual(0);
  return rest;
}

/** Counts what comes to it, and answers nothing. */
async function countingServer(): Promise<{ readonly port: number; readonly count: () => number }> {
  let count = 0;
  const server = stack.use(await tcpServer(() => (count += 1)));
  return { port: server.port, count: () => count };
}

describe("a port that speaks HTTP", () => {
  test.each([
    ["an intercept of everything", {}],
    ["an intercept with a filter", { filter: 'request.method == "PUT"' }],
  ])("is verified, and neither application nor laptop hears of it: %s", async (_, spec) => {
    const application = await countingServer();
    const { path, laptop, agentPort } = await lab({ application, http: true, spec });
    expect(await path.start(never)).toEqual([]);
    expect(known(path)).toEqual({ verdict: "verified", through: [`127.0.0.1:${agentPort}`] });
    expect({ application: application.count(), laptop: laptop.arrived }).toEqual({ application: 0, laptop: 0 });
  });

  test("is by-passed where the application answers, which learns nothing of the secret", async () => {
    const application = stack.use(await httpServer("application"));
    const heads: string[] = [];
    application.server.on("request", (request) => heads.push(request.rawHeaders.join(" ")));
    const { path } = await lab({ application, http: true, instead: application.port });
    const [warning = ""] = await path.start(never);
    expect(warning).toBe(
      `callers may not reach the traffic-agent: somebody else (HTTP 200) answered at 127.0.0.1:${application.port}, not the agent in pod hello-1; Istio takes the port before the agent`,
    );
    expect(path.state?.verdict).toBe("by-passed");
    expect(new Set(application.seen)).toEqual(new Set([`GET ${canaryPath}`]));
    expect(heads.join(" ")).toContain("telepresence-canary");
    expect(heads.join(" ")).not.toContain(secret);
  });

  test("is by-passed where nobody listens, and where what listens hangs up or speaks something else", async () => {
    const application = await countingServer();
    const gone = await tcpServer(() => undefined);
    await gone[Symbol.asyncDispose]();
    const hangsUp = stack.use(await tcpServer((socket) => socket.resetAndDestroy()));
    const greets = stack.use(await tcpServer((socket) => socket.write("220 mail.example.com ESMTP\r\n")));
    for (const [instead, what] of [
      [gone.port, `nobody listens at 127.0.0.1:${gone.port}`],
      [hangsUp.port, `the connection to 127.0.0.1:${hangsUp.port} was closed`],
      [greets.port, `something that does not speak HTTP answered at 127.0.0.1:${greets.port}`],
    ] as const) {
      const { path } = await lab({ application, http: true, instead });
      await path.start(never);
      expect(path.state).toMatchObject({ verdict: "by-passed", reason: expect.stringContaining(what) });
    }
  });

  test("is not judged where the manager may not dial it, or nothing answers", async () => {
    const application = await countingServer();
    const denied = await lab({ application, http: true, guard: { check: () => "is in a range that is denied" } });
    expect(await denied.path.start(never)).toEqual([]);
    expect(denied.path.state).toMatchObject({ verdict: "unknown", reason: expect.stringContaining("denied") });
    const mute = await countingServer();
    const waiting = await lab({ application, http: true, instead: mute.port });
    expect(await waiting.path.start(never)).toEqual([]);
    expect(waiting.path.state).toMatchObject({ verdict: "unknown", through: [] });
  });

  test("is by-passed where the agent of another pod answers", async () => {
    const application = await countingServer();
    const { path, agents } = await lab({ application, http: true });
    agents[0] = { ...(agents[0] as IntroducedAgent), podUid: "uid-2" };
    await path.start(never);
    expect(path.state).toMatchObject({
      verdict: "by-passed",
      reason: expect.stringContaining("the agent of another pod answered"),
    });
  });

  test("takes a canary with a wrong proof for a caller", async () => {
    const application = stack.use(await httpServer("application"));
    const { agent, laptop } = await lab({ application, http: true, spec: { filter: "false" } });
    const nonce = "0f".repeat(16);
    const wrong = createHmac("sha256", "another secret").update(askedText(nonce)).digest("hex");
    const answer = await ask(agent.agentPorts[0] ?? 0, encodeCanaryRequest({ nonce, proof: wrong }, "x").toString());
    expect(answer).toContain("application GET");
    expect({ seen: application.seen, laptop: laptop.arrived }).toEqual({ seen: [`GET ${canaryPath}`], laptop: 0 });
  });

  test("is tried again by itself, and after a change at once", async () => {
    const application = await countingServer();
    const clock = new FakeClock();
    let dials = 0;
    const guard: DialGuard = { check: () => ((dials += 1), undefined) };
    const { path, agents, changes, arrival } = await lab({ application, http: true, guard, clock });
    await path.start(never);
    expect(dials).toBe(1);
    await clock.advance(10_000);
    expect([dials, path.state?.ageMs]).toEqual([1, 10_000]);
    await clock.advance(20_000);
    await expect.poll(() => dials).toBe(2);
    await expect.poll(() => path.state?.ageMs).toBe(0);
    changes.wake(); // nothing that matters
    await clock.advance(1000);
    expect(dials).toBe(2);
    agents[0] = { ...(agents[0] as IntroducedAgent), fingerprint: "of a new agent" };
    changes.wake();
    await tick();
    await clock.advance(300);
    await expect.poll(() => dials).toBe(3);
    arrival.sessionId = "on the next manager";
    changes.wake();
    const dialled = async (): Promise<number> => {
      await clock.advance(300);
      return dials;
    };
    await expect.poll(dialled).toBe(4);
    agents.length = 0;
    changes.wake();
    const later = async (): Promise<unknown> => {
      await clock.advance(300);
      return path.state;
    };
    await expect.poll(later).toBeUndefined();
    expect(application.count()).toBe(0);
  });
});

describe("a port that may speak anything", () => {
  test("is verified by a connection that says nothing, once", async () => {
    const application = await countingServer();
    let dials = 0;
    const guard: DialGuard = { check: () => ((dials += 1), undefined) };
    const clock = new FakeClock();
    const { path, laptop, agentPort } = await lab({ application, guard, clock });
    expect(await path.start(never)).toEqual([]);
    expect(known(path)).toEqual({ verdict: "verified", through: [`127.0.0.1:${agentPort}`] });
    expect({ application: application.count(), laptop: laptop.arrived, dials }).toEqual({
      application: 0,
      laptop: 0,
      dials: 1,
    });
    await clock.advance(120_000);
    expect([dials, path.state?.ageMs]).toEqual([1, 120_000]);
  });

  test("is by-passed where its count does not rise; what took it saw a connection without a byte", async () => {
    const application = await countingServer();
    const got: Buffer[] = [];
    const stranger = stack.use(
      await tcpServer((socket) =>
        socket.on("data", (chunk) => got.push(chunk as Buffer)).on("end", () => socket.end()),
      ),
    );
    const { path } = await lab({ application, instead: stranger.port });
    expect(await path.start(never)).toHaveLength(1);
    expect(path.state?.reason).toContain(`somebody else took a connection to 127.0.0.1:${stranger.port}`);
    expect(Buffer.concat(got)).toHaveLength(0);
  });

  // A server that speaks first must be heard at once; only a caller from the manager's pod waits while a canary is due.
  test("does not delay callers while a canary is expected", async () => {
    const application = stack.use(await tcpServer((socket) => socket.end("hello, who are you?")));
    const { path, agentPort } = await lab({ application, spec: { onRefused: "app" }, agentClock: endlessClock });
    await path.start(never);
    const caller = connect({ port: agentPort, host: "127.0.0.1", localAddress: "127.0.0.2" });
    const chunks: Buffer[] = [];
    for await (const chunk of caller) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).toBe("hello, who are you?");
  });

  test("serves a caller from the manager's address that speaks while a canary is expected", async () => {
    const application = stack.use(await namedServer("application"));
    const { path, agentPort } = await lab({ application });
    await path.start(never);
    expect(await ask(agentPort, "x")).toBe("application:x");
  });
});

test("an agent of an older version is not tried", async () => {
  const application = await countingServer();
  const { path, agents, laptop } = await lab({ application, http: true });
  agents[0] = { ...(agents[0] as IntroducedAgent), canaries: false };
  expect(await path.start(never)).toEqual([]);
  expect(path.state).toMatchObject({ verdict: "unknown", reason: expect.stringContaining("older version") });
  expect(laptop.arrived).toBe(0);
});

describe("a service", () => {
  const serviceAt = (port: number, containerPort: number) => [
    { name: "hello", address: "127.0.0.1", port, containerPort },
  ];

  test("is verified as well, and waits for its proxy to follow", async () => {
    const application = stack.use(await httpServer("application"));
    let target = application.port; // the pod of before
    const proxy = stack.use(
      await tcpServer((caller) => {
        const end = connect({ port: target, host: "127.0.0.1" });
        end.on("error", () => caller.destroy());
        caller.on("error", () => end.destroy());
        caller.pipe(end).pipe(caller);
      }),
    );
    const { path, agentPort } = await lab({
      application,
      http: true,
      path: { services: serviceAt(proxy.port, application.port) },
    });
    const starting = path.start(never);
    await expect.poll(() => application.seen.length).toBeGreaterThan(0);
    target = agentPort;
    expect(await starting).toEqual([]);
    expect(known(path)?.verdict).toBe("verified");
    expect(known(path)?.through.toSorted()).toEqual([`127.0.0.1:${agentPort}`, "hello (ClusterIP)"]);
  });

  test("gets no canary while a pod without our agent may answer", async () => {
    const application = stack.use(await httpServer("application"));
    const access = {
      findServicePods: () => Promise.resolve(["uid-1", "uid-of-another"]),
      explainByPass: () => Promise.resolve("nothing"),
    };
    const services = serviceAt(application.port, application.port);
    const { path, agentPort } = await lab({ application, http: true, path: { services, access } });
    expect(await path.start(never)).toEqual([]);
    expect(known(path)?.through).toEqual([`127.0.0.1:${agentPort}`]);
    expect(application.seen).toEqual([]);
  });
});
