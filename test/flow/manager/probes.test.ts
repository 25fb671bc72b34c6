// Who answers the kubelet's probes of an intercepted port. Story of the original: a process at a breakpoint let the
// probes of its pod time out, and the kubelet restarted the application's container, for everybody.
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { afterAll, afterEach, describe, expect, onTestFinished, test } from "vitest";
import type { PodProbe } from "#wire/agent-api.ts";
import type { InterceptSpec, ProbeMode } from "#wire/manager-api.ts";
import { createIdentity } from "#tunnel/identity.ts";
import { askAgent, never, tcpServer, testAgent, testManager, TestLaptop } from "./harness.ts";
import { KeptCaller, httpServer } from "./http-ends.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import { SecretVolume, TlsCaller, secureServer } from "./tls-ends.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

function ofTest(): AsyncDisposableStack {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  return disposables;
}

type Declared = Omit<PodProbe, "containerPort">;
const declared: readonly Declared[] = [
  { by: "http", path: "/healthz?full" },
  { by: "https", path: "/healthz?full" },
  { by: "grpc" },
];
const kubelet = { "user-agent": "kube-probe/1.34" };
const identity = createIdentity("app");
const healthCheck = "/grpc.health.v1.Health/Check";

type Protocol = "HTTP/1.1" | "HTTP/2" | "gRPC" | "TLS, HTTP/1.1" | "TLS, HTTP/2";
interface Asked {
  readonly path: string;
  readonly headers: Record<string, string>;
}

/** One pod for many tests, each with an intercept of its own. */
function lastingPod(protocol: Protocol): () => ReturnType<typeof pod> {
  const disposables = new AsyncDisposableStack();
  afterAll(() => disposables.disposeAsync());
  let opened: ReturnType<typeof pod> | undefined;
  return () => (opened ??= pod(protocol, { disposables }));
}

interface PodOptions {
  readonly probes?: readonly Declared[];
  readonly mounted?: boolean;
  /** What its parts belong to; the test when left out. */
  readonly disposables?: AsyncDisposableStack;
}

/** A pod that declares its probes, and a laptop. Says who answers. */
async function pod(protocol: Protocol, { probes = declared, mounted = true, disposables = ofTest() }: PodOptions = {}) {
  const open = {
    "HTTP/1.1": (name: string) => httpServer(name),
    "HTTP/2": (name: string) => http2Server(name),
    gRPC: (name: string) => http2Server(name),
    "TLS, HTTP/1.1": (name: string) => secureServer(name, identity),
    "TLS, HTTP/2": (name: string) => secureServer(name, identity),
  }[protocol];
  const isTls = protocol.startsWith("TLS");
  const manager = disposables.use(await testManager());
  const app = disposables.use(await open("app"));
  const process = disposables.use(await open("laptop"));
  const volumes = isTls && mounted ? [disposables.use(new SecretVolume("web-tls", identity))] : [];
  const laptop = disposables.use(await TestLaptop.connect(manager));
  const agent = disposables.use(
    await testAgent({
      containerPort: app.port,
      probes,
      certificateVolumes: volumes,
      ...(isTls ? { tls: true, http: false } : { http: true }),
    }),
  );
  await laptop.introduce(manager, agent);
  laptop.serveWith(process.port);
  const intercept = (more: Partial<InterceptSpec>) => laptop.intercept("hello", app.port, "tcp", more);
  const ask = async ({ path, headers }: Asked, serverName = ""): Promise<string> => {
    const port = agent.agentPorts[0]!;
    if (isTls) {
      using caller = new TlsCaller(protocol === "TLS, HTTP/1.1" ? "http1" : "http2", port, serverName);
      return named((await caller.ask({ path, headers })).body);
    }
    if (protocol === "HTTP/1.1") {
      using caller = new KeptCaller(port);
      return named((await caller.ask({ path, headers })).body);
    }
    using caller = new KeptHttp2Caller(port);
    const method = protocol === "gRPC" ? "POST" : "GET";
    const got = await caller.ask({ method, path, headers, ...(protocol === "gRPC" ? { body: Buffer.alloc(5) } : {}) });
    return got.trailers["grpc-status"] === "0" ? `agent ${Buffer.from(got.body).toString("hex")}` : named(got.body);
  };
  return { agent, app, laptop, intercept, ask };
}

/** The servers of these tests answer with their names first. */
function named(body: string): string {
  return body.startsWith("answered by the traffic-agent") ? "agent" : body.split(" ")[0]!;
}

const protocols: readonly Protocol[] = ["HTTP/1.1", "HTTP/2", "gRPC", "TLS, HTTP/1.1", "TLS, HTTP/2"];
const modes: readonly (ProbeMode | undefined)[] = [undefined, "app", "agent", "laptop"];
const filters = {
  everything: undefined,
  "what a filter takes": "true",
  "what no filter takes": 'request.path == "/x"',
};

describe.each(protocols)("probes over %s", (protocol) => {
  const lasting = lastingPod(protocol);
  const probe: Asked = { path: protocol === "gRPC" ? healthCheck : "/healthz?full", headers: kubelet };
  const itself = protocol === "gRPC" ? "agent 00000000020801" : "agent"; // SERVING

  describe.each(modes)("with --probes %s", (mode) => {
    test.each(Object.entries(filters))("of a port of which the laptop gets %s", async (what, filter) => {
      const { intercept, ask, agent, laptop } = await lasting();
      const wish = { ...(filter === undefined ? {} : { filter }), ...(mode === undefined ? {} : { probes: mode }) };
      const { id, state } = await intercept(wish);
      onTestFinished(async () => {
        await laptop.remove(id);
      });
      expect(state).toBe("active");
      const laptops = what === "what no filter takes" ? "app" : "laptop";
      const expected = { app: "app", agent: itself, laptop: laptops }[mode ?? "app"];
      expect(await ask(probe)).toBe(expected);
      // Anybody else's request, and one that says to be the kubelet's and is none of this pod's.
      expect(await ask({ ...probe, headers: {} })).toBe(laptops);
      expect(await ask({ ...probe, path: "/other" })).toBe(mode === "laptop" ? laptops : "app");
      const { decisions } = await askAgent(agent, (rpc) => rpc.call("why", { limit: 3 }, never));
      // What the laptop reads in TLS by itself, nobody has seen.
      const isRaw = protocol.startsWith("TLS") && filter === undefined && mode === "laptop";
      if (isRaw) return;
      const answeredBy = { app: "application", laptop: "laptop", [itself]: "agent" }[expected];
      expect(decisions[0]).toMatchObject({ isProbe: true, answeredBy });
      expect(decisions[0]?.failure).toBeUndefined();
      expect(decisions[1]?.isProbe).toBeUndefined();
    });
  });

  test("are answered while a debugger holds the process", async () => {
    for (const [probes, expected] of [
      ["app", "app"],
      ["agent", itself],
    ] as const) {
      const { intercept, ask, laptop } = await pod(protocol);
      laptop.onIncoming = (incoming) => void incoming.accept();
      await intercept({ probes });
      expect(await ask(probe)).toBe(expected);
      expect(laptop.arrived).toBe(0);
    }
  });
});

test("of several intercepts of a port, who wants the agent to answer wins, and then the laptop whose filter takes it", async () => {
  const { intercept, ask, laptop } = await pod("HTTP/1.1");
  const probe: Asked = { path: "/healthz?full", headers: kubelet };
  const ann = { name: "ann", filter: 'request.headers["x-user"] == "ann"', allowOverlap: true } as const;
  const { id } = await intercept({ ...ann, probes: "agent" });
  await intercept({ name: "everything", probes: "laptop", allowOverlap: true });
  expect(await ask(probe)).toBe("agent");
  await laptop.remove(id);
  expect(await ask(probe)).toBe("laptop");
  await intercept({ ...ann, name: "ann-again" });
  expect(await ask(probe)).toBe("laptop");
});

describe("TLS that no filter asks to be read", () => {
  const probe: Asked = { path: "/healthz?full", headers: kubelet };

  test("is left as it is for callers that name a server, as the kubelet does not", async () => {
    const { intercept, ask, app } = await pod("TLS, HTTP/1.1");
    await intercept({});
    expect(await ask({ path: "/", headers: {} }, "shop.example")).toBe("laptop");
    expect(app.seen).toEqual([]);
  });

  test("goes to the application where it may be a probe, and cannot be read", async () => {
    const { intercept, ask } = await pod("TLS, HTTP/1.1", { mounted: false });
    await intercept({});
    expect(await ask(probe)).toBe("app");
    expect(await ask({ path: "/", headers: {} })).toBe("app");
    expect(await ask({ path: "/", headers: {} }, "shop.example")).toBe("laptop");
  });

  test("goes to the laptop where no probe comes in it", async () => {
    const { intercept, ask } = await pod("TLS, HTTP/1.1", { probes: [] });
    await intercept({});
    expect(await ask({ path: "/", headers: {} })).toBe("laptop");
  });
});

// A TCP probe asked the laptop each time, counted as a refusal when nobody listened there.
describe("TCP probes", () => {
  async function tcpPod(http: boolean | undefined, probes: ProbeMode) {
    const disposables = ofTest();
    const manager = disposables.use(await testManager());
    let connections = 0;
    const onConnection = (socket: Socket): void => {
      connections += 1;
      socket.resume().on("end", () => socket.end());
    };
    const app = disposables.use(await tcpServer(onConnection));
    const laptop = disposables.use(await TestLaptop.connect(manager));
    const tcp = [{ by: "tcp" as const }];
    const agent = disposables.use(await testAgent({ containerPort: app.port, http, probes: tcp }));
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "tcp", { probes });
    const probe = async (): Promise<void> => {
      const socket = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1" });
      await once(socket, "connect");
      socket.end();
      socket.resume();
      socket.on("error", () => undefined); // the application's refusal
      await once(socket, "close");
    };
    return { agent, laptop, probe, connections: () => connections };
  }

  describe.each([true, false, undefined])("of a port whose http is %s", (http) => {
    test.each([
      ["app", 5, 0, "application"],
      ["agent", 0, 0, "agent"],
      ["laptop", 5, 5, "application"],
    ] as const)("with --probes %s", async (mode, atApplication, atLaptop, answeredBy) => {
      const { agent, laptop, probe, connections } = await tcpPod(http, mode);
      for (let count = 0; count < 5; count += 1) await probe();
      const { decisions } = await askAgent(agent, (rpc) => rpc.call("why", { limit: 9 }, never));
      // The laptop refuses, so the application answers in its place.
      expect({ laptop: laptop.arrived, application: connections() }).toEqual({
        laptop: atLaptop,
        application: atApplication,
      });
      expect(decisions.map((decision) => decision.answeredBy)).toEqual(Array(5).fill(answeredBy));
      expect(decisions.every(({ isProbe }) => isProbe === true)).toBe(true);
      if (mode !== "laptop") expect(laptop.intercepts[0]?.refusedByLaptop).toBe(0);
    });
  });
});
