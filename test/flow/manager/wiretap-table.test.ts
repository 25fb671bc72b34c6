// A wiretap on each protocol, and each way in which its laptop may fail it: the application answers every caller, byte
// for byte, whatever becomes of the copy.
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { createIdentity } from "#tunnel/identity.ts";
import { startLab } from "./wiretap-lab.ts";
import type { Lab } from "./wiretap-lab.ts";
import { ask, namedServer, tcpServer, tick } from "./harness.ts";
import type { TestLaptop } from "./harness.ts";
import { KeptCaller, describe as describeRequest, httpServer } from "./http-ends.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import { SecretVolume, TlsCaller, secureServer } from "./tls-ends.ts";
import type { Version } from "./tls-ends.ts";

const own = createIdentity("app");
const ofLaptop = createIdentity("laptop");
const body = Buffer.from("x".repeat(20_000));
const filter = 'request.path.startsWith("/copied")';

type Server = AsyncDisposable & { readonly port: number; readonly seen: readonly string[] };
type Ask = (path: string) => Promise<string>;

interface Protocol {
  readonly name: string;
  readonly app: () => Promise<AsyncDisposable & { readonly port: number }>;
  readonly process: () => Promise<Server>;
  readonly caller: (port: number) => Disposable & { readonly ask: Ask };
  /** What the application answers. */
  readonly answer: (path: string) => string;
  /** What the process has seen of it. */
  readonly copy: (path: string) => string;
  /** It speaks of requests, among which may be chosen. */
  readonly hasRequests: boolean;
  readonly isTls: boolean;
}

async function rawProcess(): Promise<Server> {
  const seen: string[] = [];
  const server = await tcpServer((socket) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("end", () => {
      seen.push(Buffer.concat(chunks).toString());
      socket.end("thrown away");
    });
  });
  return Object.assign(server, { seen });
}

/** Each request a POST with the body. */
function posting(caller: KeptCaller | KeptHttp2Caller | TlsCaller): Disposable & { readonly ask: Ask } {
  return {
    ask: async (path) => (await caller.ask({ method: "POST", path, body })).body,
    [Symbol.dispose]: () => caller[Symbol.dispose](),
  };
}

const answerOf = (path: string): string => describeRequest("app", "POST", path, body);
const withTls = (version: Version): Protocol => ({
  name: `TLS with ${version === "http1" ? "HTTP/1.1" : "HTTP/2"}`,
  app: () => secureServer("app", own),
  process: () => secureServer("tap", ofLaptop),
  caller: (port) => posting(new TlsCaller(version, port)),
  answer: answerOf,
  copy: (path) => `shop.example ${version === "http1" ? "http/1.1" : "h2"} POST ${path}`,
  hasRequests: true,
  isTls: true,
});

const protocols: readonly Protocol[] = [
  {
    name: "raw TCP",
    app: () => namedServer("app"),
    process: rawProcess,
    caller: (port) => ({ ask: (path) => ask(port, `\0${path} ${body}`), [Symbol.dispose]: () => undefined }),
    answer: (path) => `app:\0${path} ${body}`,
    copy: (path) => `\0${path} ${body}`,
    hasRequests: false,
    isTls: false,
  },
  {
    name: "HTTP/1.1, one connection",
    app: () => httpServer("app"),
    process: () => httpServer("tap"),
    caller: (port) => posting(new KeptCaller(port)),
    answer: answerOf,
    copy: (path) => `POST ${path}`,
    hasRequests: true,
    isTls: false,
  },
  {
    name: "HTTP/2",
    app: () => http2Server("app"),
    process: () => http2Server("tap"),
    caller: (port) => posting(new KeptHttp2Caller(port)),
    answer: answerOf,
    copy: (path) => `POST ${path}`,
    hasRequests: true,
    isTls: false,
  },
  withTls("http1"),
  withTls("http2"),
];

interface Arrived {
  readonly lab: Lab;
  readonly laptop: TestLaptop;
  readonly caller: ReturnType<Protocol["caller"]>;
  readonly tap: Lab["tap"];
}

/** One pod for the tests of a protocol, to each of which a laptop and a caller come. */
function lastingLab(protocol: Protocol): () => Promise<Arrived> {
  const disposables = new AsyncDisposableStack();
  let lab: Lab;
  beforeAll(async () => {
    const certificateVolumes = protocol.isTls ? [disposables.use(new SecretVolume("web-tls", own))] : [];
    lab = disposables.use(await startLab(await protocol.app(), { certificateVolumes }));
  });
  afterAll(() => disposables.disposeAsync());
  return async () => {
    const [laptop, caller] = [await lab.join("ann@laptop"), protocol.caller(lab.port)];
    onTestFinished(async () => {
      caller[Symbol.dispose]();
      await laptop[Symbol.asyncDispose]();
      while (lab.manager.registry.list().some(({ state }) => state === "active")) await tick();
    });
    return { lab, laptop, caller, tap: (more) => lab.tap(more, laptop) };
  };
}

/** For as long as the test runs. */
async function use<T extends AsyncDisposable>(made: Promise<T>): Promise<T> {
  const one = await made;
  onTestFinished(() => one[Symbol.asyncDispose]());
  return one;
}

const failures: readonly {
  readonly what: string;
  readonly arrange: (laptop: TestLaptop, lab: Lab) => Promise<unknown>;
}[] = [
  { what: "whose laptop is gone", arrange: (laptop) => laptop[Symbol.asyncDispose]() },
  {
    what: "whose laptop was the last one and is gone",
    arrange: (laptop, lab) => Promise.all([laptop[Symbol.asyncDispose](), lab.laptop[Symbol.asyncDispose]()]),
  },
  {
    what: "whose laptop never answers",
    arrange: async (laptop) => (laptop.onIncoming = () => undefined),
  },
  {
    what: "whose process takes connections and reads nothing",
    arrange: async (laptop) => laptop.serveWith((await use(tcpServer((socket) => socket.pause()))).port),
  },
  {
    what: "whose process resets every connection",
    arrange: async (laptop) => {
      const server = tcpServer((socket) => socket.once("data", () => socket.resetAndDestroy()));
      laptop.serveWith((await use(server)).port);
    },
  },
  { what: "whose process does not listen", arrange: async (laptop) => laptop.serveWith(1) },
];

const paths = ["/copied/1", "/copied/2", "/copied/3"];

describe.each(protocols)("$name", (protocol) => {
  const arrive = lastingLab(protocol);

  test("is answered by the application and copied as a whole", async () => {
    const { laptop, caller, tap } = await arrive();
    const process = await use(protocol.process());
    laptop.serveWith(process.port);
    await tap();
    for (const path of paths) expect(await caller.ask(path)).toBe(protocol.answer(path));
    await expect.poll(() => [...process.seen].toSorted()).toEqual(paths.map(protocol.copy));
    await laptop.until(([info]) => info?.copies?.copied === 3);
    expect(laptop.intercepts[0]?.copies).toEqual({ copied: 3, cut: 0 });
  });

  test("is not copied any more when the wiretap has ended", async () => {
    const { laptop, caller, tap } = await arrive();
    const process = await use(protocol.process());
    laptop.serveWith(process.port);
    const { id } = await tap();
    expect(await caller.ask("/copied/1")).toBe(protocol.answer("/copied/1"));
    await expect.poll(() => process.seen).toHaveLength(1);
    await laptop.remove(id);
    expect(await caller.ask("/copied/2")).toBe(protocol.answer("/copied/2"));
    expect(process.seen).toEqual([protocol.copy("/copied/1")]);
  });

  test("is copied beside an intercept, whoever answers", async () => {
    const { lab, laptop, caller, tap } = await arrive();
    const process = await use(protocol.process());
    laptop.serveWith(process.port);
    const other = await use(lab.join("bob@desk"));
    const answerer = await use(protocol.isTls ? secureServer("app", ofLaptop) : protocol.app());
    other.serveWith(answerer.port);
    await tap(protocol.hasRequests ? { filter } : {});
    await other.intercept("takes", lab.containerPort, "tcp", protocol.hasRequests ? { filter } : {});
    for (const path of paths) expect(await caller.ask(path)).toBe(protocol.answer(path));
    expect(other.arrived).toBeGreaterThan(0);
    await expect.poll(() => [...process.seen].toSorted()).toEqual(paths.map(protocol.copy));
  });

  test.each(failures)("with a wiretap $what is answered as ever", async ({ arrange }) => {
    const { lab, laptop, caller, tap } = await arrive();
    await tap();
    await arrange(laptop, lab);
    const all = [...paths, ...paths, ...paths];
    for (const path of all) expect(await caller.ask(path)).toBe(protocol.answer(path));
  });
});

describe.each(protocols.filter(({ hasRequests }) => hasRequests))("a request of $name", (protocol) => {
  const arrive = lastingLab(protocol);

  test("is copied only where the filter takes it", async () => {
    const { laptop, caller, tap } = await arrive();
    const process = await use(protocol.process());
    laptop.serveWith(process.port);
    await tap({ filter });
    for (const path of ["/other", ...paths, "/more"]) expect(await caller.ask(path)).toBe(protocol.answer(path));
    await expect.poll(() => [...process.seen].toSorted()).toEqual(paths.map(protocol.copy));
  });
});
