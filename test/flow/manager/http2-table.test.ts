// Every kind of request of HTTP/2 and gRPC in every state that an intercept can be in, each on a connection that had an
// answer of the application before. Story of the original: HTTP/2 was one connection to it, so who came first got all.
import { status } from "@grpc/grpc-js";
import { performServerHandshake } from "node:http2";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Agent } from "#agent/agent.ts";
import type { Manager } from "#manager/manager.ts";
import { KeptGrpcCaller, grpcServer } from "./grpc-ends.ts";
import type { GrpcGot } from "./grpc-ends.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import type { Http2Asked, Http2Got } from "./http2-ends.ts";
import { TestLaptop, testAgent, testManager, tick } from "./harness.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

type State = "no intercept" | "intercept" | "not matched" | "refuses" | "fails" | "gone" | "lost before" | "lost amid";

/** One pod, its application and the laptops' process, for many tests, to each of which a laptop comes. */
function lastingPod<Server extends AsyncDisposable & { readonly port: number }>(
  serve: (name: string) => Promise<Server>,
): () => Pod<Server> {
  const disposables = new AsyncDisposableStack();
  let pod: Pod<Server>;
  beforeAll(async () => {
    const manager = disposables.use(await testManager({ idleOwnerMs: 0 })); // laptops are lost here, and others come
    const app = disposables.use(await serve("app"));
    const process = disposables.use(await serve("laptop"));
    pod = { manager, app, process, agent: disposables.use(await testAgent({ containerPort: app.port })) };
  });
  afterAll(() => disposables.disposeAsync());
  return () => pod;
}
interface Pod<Server> {
  readonly manager: Manager;
  readonly app: Server;
  readonly process: Server;
  readonly agent: Agent;
}

/** A laptop of a test, and how it comes to be in a state. */
async function prepare({ manager, app, process, agent }: Pod<{ readonly port: number }>) {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  disposables.defer(untilFree);
  const laptop = disposables.use(await TestLaptop.connect(manager));
  await laptop.introduce(manager, agent);
  /** The agent hears of it from the manager, some turns of the loop later. */
  async function untilFree(): Promise<void> {
    while (manager.registry.list().some((intercept) => intercept.state === "active")) await tick();
  }
  const enter = async (state: State): Promise<void> => {
    if (state === "no intercept") return;
    if (state === "intercept" || state === "not matched" || state === "gone") laptop.serveWith(process.port);
    if (state === "lost before" || state === "lost amid") loseLink(laptop, state);
    const more = {
      ...(state === "not matched" ? { filter: 'request.headers["x-user"] == "ann"' } : {}),
      ...(state === "fails" ? { onRefused: "fail" as const } : {}),
    };
    await laptop.intercept("hello", app.port, "tcp", more);
    if (state !== "gone") return;
    laptop.transport.destroy();
    await laptop.session.closed;
    await untilFree();
  };
  return { laptop, agentPort: agent.agentPorts[0]!, enter, disposables };
}

/** A process that takes the request and, with its laptop, is gone. */
function loseLink(laptop: TestLaptop, state: State): void {
  laptop.onIncoming = (incoming) => {
    const session = performServerHandshake(incoming.accept());
    session.on("error", () => undefined);
    session.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on("error", () => undefined).resume();
      if (state === "lost before") {
        // As soon as it must not be sent again.
        let leftBytes = headers["content-type"] === "application/grpc" ? 1 : 128 * 1024;
        const lose = (): void => void laptop.transport.destroy();
        stream.on("data", (chunk: Buffer) => (leftBytes -= chunk.length) <= 0 && lose()).on("end", lose);
        return;
      }
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.write("half");
    });
  };
}

const small = Buffer.from("0123456789");
const large = Buffer.alloc(1024 * 1024, 7);

interface Kind {
  readonly name: string;
  readonly asked: Http2Asked;
  readonly repeatable: boolean;
}
const kinds: readonly Kind[] = [
  { name: "GET", asked: {}, repeatable: true },
  { name: "HEAD", asked: { method: "HEAD" }, repeatable: true },
  { name: "PUT 10 B", asked: { method: "PUT", body: small }, repeatable: true },
  { name: "PUT 1 MiB", asked: { method: "PUT", body: large }, repeatable: false },
  { name: "POST 10 B", asked: { method: "POST", body: small }, repeatable: false },
  { name: "POST 1 MiB", asked: { method: "POST", body: large }, repeatable: false },
];

const plainPod = lastingPod((name) => http2Server(name));

async function plain(state: State): Promise<{ ask: (asked: Http2Asked) => Promise<Http2Got>; laptop: TestLaptop }> {
  const { laptop, agentPort, enter, disposables } = await prepare(plainPod());
  const caller = disposables.use(new KeptHttp2Caller(agentPort));
  expect((await caller.ask()).body).toMatch(/^app GET/);
  await enter(state);
  return { laptop, ask: (asked) => caller.ask(asked) };
}

describe.each(kinds)("HTTP/2, $name", ({ name, asked, repeatable }) => {
  const bodyOf = (who: string): RegExp =>
    asked.method === "HEAD" ? /^$/ : new RegExp(`^${who} ${asked.method ?? "GET"} / ${asked.body?.length ?? 0} `);

  test.each([
    ["no intercept", "app"],
    ["intercept", "laptop"],
    ["not matched", "app"],
    ["refuses", "app"],
    ["gone", "app"],
  ] as const)("with %s is answered by the %s", async (state, who) => {
    const { ask } = await plain(state);
    const got = await ask(asked);
    expect(got.status).toBe(200);
    expect(got.body).toMatch(bodyOf(who));
  });

  test("with a process that refuses, and --on-refused fail, says so", async () => {
    const { ask } = await plain("fails");
    const got = await ask(asked);
    expect(got.status).toBe(502);
    if (name !== "HEAD") expect(got.body).toMatch(/^telepresence: the laptop's process did not take the request/);
  });

  test("with its laptop lost before the answer goes to the application, or says why not", async () => {
    const { ask } = await plain("lost before");
    const got = await ask(asked);
    expect(got.status).toBe(repeatable ? 200 : 502);
    if (repeatable) expect(got.body).toMatch(bodyOf("app"));
    else expect(got.body).toMatch(/^telepresence: the laptop's answer to this (POST|PUT) was lost/);
  });

  test("with its laptop lost amid the answer is reset, never ended as if it were whole", async () => {
    const { ask, laptop } = await plain("lost amid");
    const onHead = (): unknown => laptop.transport.destroy();
    const got = ask({ ...asked, onHead });
    if (name === "HEAD") await got.catch(() => undefined);
    else await expect(got).rejects.toThrow(/^reset with 2 after 200/);
  });
});

const grpcPod = lastingPod((name) => grpcServer(name));

async function grpc(state: State) {
  const { laptop, agentPort, enter, disposables } = await prepare(grpcPod());
  const caller = disposables.use(new KeptGrpcCaller(agentPort));
  expect((await caller.unary()).messages).toEqual(["app:hi"]);
  await enter(state);
  return { ...grpcPod(), laptop, caller };
}

interface Call {
  readonly name: string;
  readonly run: (caller: KeptGrpcCaller) => Promise<GrpcGot>;
  readonly expected: (who: string) => Partial<GrpcGot>;
}
const calls: readonly Call[] = [
  {
    name: "unary",
    run: (caller) => caller.unary(),
    expected: (who) => ({ code: status.OK, messages: [`${who}:hi`], trailers: { "x-served-by": who } }),
  },
  {
    name: "unary 1 MiB",
    run: (caller) => caller.unary("Unary", "x".repeat(1024 * 1024)),
    expected: (who) => ({ code: status.OK, messages: [`${who}:${"x".repeat(1024 * 1024)}`] }),
  },
  {
    name: "server stream",
    run: (caller) => caller.list(),
    expected: (who) => ({ code: status.OK, messages: [0, 1, 2].map((number) => `${who}${number}`) }),
  },
  {
    name: "bidirectional",
    run: (caller) => caller.chat(["a", "b", "c"]),
    expected: (who) => ({ code: status.OK, messages: ["a", "b", "c"].map((word) => `${who}:${word}`) }),
  },
  {
    name: "trailers only",
    run: (caller) => caller.unary("Missing"),
    expected: (who) => ({ code: status.NOT_FOUND, details: `${who} has none`, messages: [] }),
  },
];

describe.each(calls)("gRPC, $name", ({ run, expected }) => {
  test.each([
    ["no intercept", "app"],
    ["intercept", "laptop"],
    ["not matched", "app"],
    ["refuses", "app"],
    ["gone", "app"],
  ] as const)("with %s is answered by the %s", async (state, who) => {
    const { caller } = await grpc(state);
    expect(await run(caller)).toMatchObject(expected(who));
  });

  test.each([
    ["fails", /^telepresence: the laptop's process did not take the request/],
    ["lost before", /^telepresence: the laptop's answer to this POST was lost/],
  ] as const)("with a laptop that %s is UNAVAILABLE, and says why", async (state, why) => {
    const { caller } = await grpc(state);
    expect(await run(caller)).toMatchObject({ code: status.UNAVAILABLE, details: expect.stringMatching(why) });
  });
});

describe("gRPC", () => {
  test.each([
    ["no intercept", "app"],
    ["intercept", "process"],
  ] as const)("with %s: a deadline and a cancellation reach the %s", async (state, who) => {
    const ends = await grpc(state);
    const { slow, cancelled } = ends[who];
    const before = { slow: slow.length, cancelled: cancelled.length };
    // One that ends on its way is nothing to who would have answered.
    for (let waitMs = 100; slow.length === before.slow; waitMs *= 2) {
      const deadline = Date.now() + waitMs;
      expect(await ends.caller.unary("Slow", "", { deadline })).toMatchObject({ code: status.DEADLINE_EXCEEDED });
    }
    while (cancelled.length === before.cancelled) await tick();
    const chat = ends.caller.chat(["a", "b"], (cancel) => cancel());
    expect(await chat).toMatchObject({ code: status.CANCELLED });
    // The connection is as good as before.
    expect((await ends.caller.unary()).messages).toEqual([`${who === "app" ? "app" : "laptop"}:hi`]);
  });
});
