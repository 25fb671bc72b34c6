// HTTP/2 through the agent, decided stream by stream: what passes must be what was sent, a stream ends as its sender ended
// it, and nobody else on the connection notices. Story of the original: its proxy ended cut answers as if they were whole.
import { once } from "node:events";
import { constants, sensitiveHeaders } from "node:http2";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { connect } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { toAppError } from "#base/error.ts";
import { httpServer } from "./http-ends.ts";
import { KeptHttp2Caller, answerAs, answerOf, http2Server } from "./http2-ends.ts";
import type { Http2Got, OnStream } from "./http2-ends.ts";
import { LogLines, TestLaptop, tcpServer, testAgent, testManager } from "./harness.ts";

const { NGHTTP2_CANCEL, NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants;

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

interface Options {
  readonly app?: OnStream;
  readonly process?: OnStream;
  readonly settings?: { readonly enableConnectProtocol: boolean };
  /** Left out: no intercept. */
  readonly filter?: string;
  readonly http?: boolean;
}

/** A pod with a caller that keeps one connection, and a laptop whose intercept is in force where there is a filter. */
async function pod(options: Options = {}) {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const log = new LogLines();
  const manager = disposables.use(await testManager());
  const app = disposables.use(await http2Server("app", options.app, options.settings));
  const process = disposables.use(await http2Server("laptop", options.process, options.settings));
  const laptop = disposables.use(await TestLaptop.connect(manager));
  const agent = disposables.use(await testAgent({ containerPort: app.port, http: options.http, log: log.logger }));
  await laptop.introduce(manager, agent);
  laptop.serveWith(process.port);
  const intercept = (filter?: string): Promise<{ readonly id: string }> =>
    laptop.intercept("hello", app.port, "tcp", filter === undefined ? {} : { filter });
  const id = options.filter === undefined ? "" : (await intercept(options.filter)).id;
  const agentPort = agent.agentPorts[0]!;
  const caller = disposables.use(new KeptHttp2Caller(agentPort));
  return { app, process, laptop, agent, agentPort, caller, intercept, id, log, disposables };
}

const ann = { "x-user": "ann" };
const forAnn = 'request.headers["x-user"] == "ann"';

describe("messages", () => {
  /** What one end saw of a request, and the other of its answer, through the agent or without it. */
  async function exchange(port: number, ends: { seen: unknown[] }, asked: readonly string[], body: string | undefined) {
    using caller = new KeptHttp2Caller(port);
    const list = Object.assign([...asked], { host: "", [sensitiveHeaders]: ["x-secret"] });
    const stream = caller.session.request(list, { endStream: body === undefined, waitForTrailers: body !== undefined });
    stream.on("wantTrailers", () => stream.sendTrailers({ "x-sum": ["1", "2"] }));
    const interim: unknown[] = [];
    let answer: unknown;
    let trailers: unknown;
    stream.on("headers", (_headers, _flags, raw) => interim.push(raw));
    stream.on("response", (headers: IncomingHttpHeaders, flags, raw) => {
      answer = { raw, flags, sensitive: Reflect.get(headers, sensitiveHeaders) };
    });
    stream.on("trailers", (_headers, flags, raw) => (trailers = { raw, flags }));
    if (body !== undefined) stream.end(body);
    const got = await answerOf(stream);
    return { interim, answer, trailers, body: got.body, seen: ends.seen.splice(0) };
  }

  const head = (method: string, path: string, ...more: readonly string[]): readonly string[] => [
    ":method",
    method,
    ":path",
    path,
    ":scheme",
    "http",
    ...more,
  ];
  const odd = "x-b=2 x-a=1 x-b=3 x-secret=s cookie=a cookie=b x-empty= te=trailers x-latin=caf\u00e9 date=today".split(
    /[ =]/,
  );
  test.each([
    ["GET", head("GET", "/", ":authority", "shop:80", ...odd), undefined],
    ["GET of a host", head("GET", "/?a=b&c", "host", "shop", ...odd), undefined],
    ["a body, an interim answer, and trailers both ways", head("POST", "/trailers", ":authority", "a"), "some text"],
    ["HEAD", head("HEAD", "/", ":authority", "a"), undefined],
    ["no content", head("DELETE", "/204", ":authority", "a"), undefined],
    ["not modified", head("GET", "/304", ":authority", "a"), undefined],
    ["trailers only", head("POST", "/only", ":authority", "a"), "x"],
    ["an empty body", head("POST", "/", ":authority", "a", "content-length", "0"), ""],
    ["no body, of one that may have one", head("POST", "/", ":authority", "a"), undefined],
  ])("of Node's own ends are the same through the agent as without it: %s", async (_name, asked, body) => {
    const seen: unknown[] = [];
    const date = "Mon, 23 Nov 2026 15:52:36 GMT"; // Node's own would be another one a second later
    const answer: OnStream = (stream, headers, list) => {
      const path = headers[":path"];
      stream.on("trailers", (_trailers, _flags, raw) => seen.push(raw));
      seen.push({ list, sensitive: Reflect.get(headers, sensitiveHeaders), endAfterHeaders: stream.endAfterHeaders });
      stream.resume().on("end", () => {
        if (path === "/204" || path === "/304") {
          stream.respond({ ":status": Number(path.slice(1)), "x-a": ["1", "2"], date }, { endStream: true });
        } else if (path === "/only") {
          stream.respond({ ":status": 200, "grpc-status": "5", date }, { endStream: true });
        } else {
          const trailers = path === "/trailers";
          if (trailers) stream.additionalHeaders({ ":status": 103, link: ["</a>", "</b>"] });
          const list = [":status", "200", "set-cookie", "a=1", "x-b", "2", "set-cookie", "b=2", "x-secret", "s"];
          const raw = Object.assign(list, { [sensitiveHeaders]: ["x-secret"] });
          stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0", "x-t": ["1", "2"] }));
          stream.respond(raw, Object.assign({ waitForTrailers: trailers }, { sendDate: false }));
          stream.end(body === "" ? undefined : "the answer");
        }
      });
    };
    const { app, agentPort } = await pod({ app: answer });
    const direct = await exchange(app.port, { seen }, asked, body);
    const through = await exchange(agentPort, { seen }, asked, body);
    expect(through).toEqual(direct);
  });

  test("brake the sender, whichever side does not read, and that delays no other stream", async () => {
    let written = 0;
    const pour = (stream: ServerHttp2Stream): void => {
      stream.respond({ ":status": 200 });
      const more = (): void => {
        while (!stream.destroyed) {
          written += 16384;
          if (!stream.write(Buffer.alloc(16384))) break;
        }
      };
      stream.on("drain", more);
      more();
    };
    const onStream: OnStream = (stream, headers, list) => {
      if (headers[":path"] === "/pour") pour(stream);
      else if (headers[":path"] === "/deaf") stream.pause();
      else answerAs("app")(stream, headers, list);
    };
    const { caller } = await pod({ app: onStream });
    const slow = caller.stream({ path: "/pour" });
    slow.on("error", () => undefined);
    await once(slow, "response");
    slow.pause();
    const deaf = caller.stream({ method: "POST", path: "/deaf" });
    deaf.on("error", () => undefined);
    let sent = 0;
    const more = (): void => {
      while (deaf.write(Buffer.alloc(16384))) sent += 16384;
    };
    deaf.on("drain", more);
    more();
    for (let count = 0; count < 20; count += 1) expect((await caller.ask({ path: `/${count}` })).status).toBe(200);
    // Until nothing moves any more.
    for (let last = -1; last !== written + sent; await caller.ask()) last = written + sent;
    expect(written).toBeLessThan(2 * 1024 * 1024);
    expect(sent).toBeLessThan(2 * 1024 * 1024);
    slow.close();
    deaf.close();
  });

  test.each(["app", "laptop"])("of events of the %s come one by one, as they are sent", async (who) => {
    const { promise: answering, resolve } = Promise.withResolvers<ServerHttp2Stream>();
    const events: OnStream = (stream) => {
      stream.respond({ ":status": 200, "content-type": "text/event-stream" });
      resolve(stream);
    };
    const { caller } = await pod({ ...(who === "laptop" ? { filter: forAnn } : {}), app: events, process: events });
    const stream = caller.stream({ headers: ann });
    const answer = await answering;
    for (const event of ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"]) {
      const heard = once(stream, "data") as Promise<[Buffer]>;
      answer.write(event);
      expect(String((await heard)[0])).toBe(event); // the next one is sent only then
    }
    stream.close(NGHTTP2_CANCEL); // as a browser leaves a page
    if (!answer.closed) await once(answer, "close");
    expect(answer.rstCode).toBe(NGHTTP2_CANCEL);
  });

  test("are reset with the code of whoever reset them, both ways", async () => {
    const codes: number[] = [];
    const { caller } = await pod({
      app: (stream, headers) => {
        stream.on("close", () => codes.push(stream.rstCode));
        if (headers[":path"] === "/before") stream.close(NGHTTP2_ENHANCE_YOUR_CALM);
        if (headers[":path"] === "/refused") stream.close(NGHTTP2_REFUSED_STREAM);
        if (headers[":path"] !== "/amid" && headers[":path"] !== "/caller") return;
        stream.respond({ ":status": 200 }, { waitForTrailers: true }); // Node would end it otherwise, and then reset it
        stream.write("half");
        if (headers[":path"] === "/amid") setImmediate(() => stream.close(NGHTTP2_CANCEL));
      },
    });
    await expect(caller.ask({ path: "/before" })).rejects.toThrow(/^reset with 11 after 0 /);
    await expect(caller.ask({ path: "/refused" })).rejects.toThrow(/^reset with 7 after 0 /);
    await expect(caller.ask({ path: "/amid" })).rejects.toThrow(/^reset with 8 after 200 and 4 bytes/);
    codes.length = 0;
    const onHead = (stream: { close: (code: number) => void }): void => stream.close(NGHTTP2_ENHANCE_YOUR_CALM);
    await expect(caller.ask({ path: "/caller", onHead })).rejects.toThrow();
    while (codes.length === 0) await turn();
    expect(codes).toEqual([NGHTTP2_ENHANCE_YOUR_CALM]);
  });

  test("may be answered before the request is whole", async () => {
    const { caller } = await pod({
      app: (stream) => {
        stream.respond({ ":status": 413 });
        stream.end("too long");
        stream.on("finish", () => stream.close(NGHTTP2_NO_ERROR));
      },
    });
    const stream = caller.stream({ method: "POST" });
    stream.write(Buffer.alloc(1000));
    expect(await answerOf(stream)).toMatchObject({ status: 413, body: "too long" });
  });

  test("of a caller that leaves end at once where they were going", async () => {
    const { caller, app, laptop } = await pod({ filter: forAnn, app: () => undefined, process: () => undefined });
    const streams = [caller.stream(), caller.stream({ headers: ann })];
    for (const stream of streams) stream.on("error", () => undefined);
    while (app.seen.length < 1 || laptop.arrived < 1) await turn();
    caller.socket.resetAndDestroy();
    while (app.sessions.size > 0 || laptop.session.streamCount > 1) await turn(); // its API is the one that stays
  });

  test("of a caller that has ended its half are over, as with any server", async () => {
    const { caller, app } = await pod({ app: () => undefined });
    const cut = answerOf(caller.stream({ method: "POST" }));
    while (app.seen.length < 1) await turn();
    caller.socket.end();
    await expect(cut).rejects.toThrow();
    while (app.sessions.size > 0) await turn();
  });
});

describe("streams of one connection", () => {
  test("go each to whom it is for, over one connection to the application", async () => {
    const { caller, app, laptop } = await pod({ filter: forAnn });
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, number) => caller.ask(number % 2 === 0 ? { headers: ann } : {})),
    );
    expect(answers.map(({ body }) => body.split(" ")[0])).toEqual(
      answers.map((_, number) => (number % 2 === 0 ? "laptop" : "app")),
    );
    expect(app.sessions.size).toBe(1);
    expect(laptop.arrived).toBe(1);
  });

  test("stay where they are through an attach and a leave, and new ones follow at once", async () => {
    const held: ServerHttp2Stream[] = [];
    const hold =
      (name: string): OnStream =>
      (stream, headers, list) => {
        if (headers[":path"] !== "/hold") {
          answerAs(name)(stream, headers, list);
          return;
        }
        stream.respond({ ":status": 200 });
        stream.write(name);
        held.push(stream);
      };
    const { caller, intercept, laptop, process } = await pod({ app: hold("app"), process: hold("laptop") });
    const begun = async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const answer = caller.ask({ path: "/hold", onHead: () => resolve() });
      await promise;
      return { answer };
    };
    const first = await begun();
    const { id } = await intercept();
    expect((await caller.ask()).body).toMatch(/^laptop /);
    const second = await begun();
    await laptop.remove(id);
    expect((await caller.ask()).body).toMatch(/^app /);
    for (const stream of held) stream.end("!");
    expect([(await first.answer).body, (await second.answer).body]).toEqual(["app!", "laptop!"]);
    while (process.sessions.size > 0 || laptop.session.streamCount > 1) await turn();
    expect(caller.goaways).toBe(0);
  });

  test("an idle laptop's connection ends with its intercept", async () => {
    const { caller, laptop, id, process } = await pod({ filter: "true" });
    await caller.ask();
    await laptop.remove(id);
    while (process.sessions.size > 0 || laptop.session.streamCount > 1) await turn();
    expect((await caller.ask()).body).toMatch(/^app /);
  });

  test("are decided by gRPC method, and by their body, which goes on as it came", async () => {
    const { caller } = await pod({
      filter: 'request.grpc.method == "Add" || (request.method == "PUT" && request.body.contains("ann"))',
    });
    const grpc = { "content-type": "application/grpc" };
    const add = { method: "POST", path: "/shop.Cart/Add", headers: grpc, body: Buffer.from("x") };
    expect((await caller.ask(add)).body).toMatch(/^laptop POST \/shop.Cart\/Add 1 /);
    expect((await caller.ask({ ...add, path: "/shop.Cart/List" })).body).toMatch(/^app POST/);
    const put = (body: Buffer) => ({ method: "PUT", body });
    expect((await caller.ask(put(Buffer.from("for ann")))).body).toMatch(/^laptop PUT \/ 7 /);
    expect((await caller.ask(put(Buffer.from("for bob")))).body).toMatch(/^app PUT \/ 7 /);
    const long = Buffer.alloc(300_000, "ann ");
    expect((await caller.ask(put(long))).body).toMatch(/^app PUT \/ 300000 /);
    const waits = { ...put(Buffer.from("for ann")), headers: { expect: "100-continue" } };
    expect((await caller.ask(waits)).body).toMatch(/^laptop PUT \/ 7 /);
  });

  test.each([
    [forAnn, undefined],
    [forAnn, true],
    [undefined, undefined],
  ])("are told although the server greets first (filter %s, HTTP by the service's word: %s)", async (filter, http) => {
    const { app, process, agentPort, intercept } = await pod(http === undefined ? {} : { http });
    await intercept(filter);
    const socket = connect({ port: agentPort, host: "127.0.0.1" });
    const greeter = filter === undefined ? process : app;
    const before = greeter.sessions.size;
    while (greeter.sessions.size === before) await turn();
    await new Promise((resolve) => setTimeout(resolve, 50)); // what it has said arrives
    using caller = new KeptHttp2Caller(agentPort, {}, socket);
    expect((await caller.ask({ headers: ann })).body).toMatch(/^laptop /);
  });

  test("of probes go to the application", async () => {
    const { caller, laptop } = await pod({ filter: "true", http: true });
    for (const agent of ["kube-probe/1.34 grpc-go/1.72.1", "grpc_health_probe grpc-go/1.60"]) {
      expect((await caller.ask({ headers: { "user-agent": agent } })).body).toMatch(/^app /);
    }
    expect(laptop.arrived).toBe(0);
  });

  test("carry WebSocket where whoever answers takes it, and only there", async () => {
    const echo: OnStream = (stream, headers, list) => {
      if (headers[":method"] !== "CONNECT") {
        answerAs("plain")(stream, headers, list);
        return;
      }
      stream.respond({ ":status": 200, "x-protocol": headers[":protocol"] });
      stream.pipe(stream);
    };
    const taken = await pod({ app: echo, settings: { enableConnectProtocol: true }, http: true });
    await taken.caller.ask();
    while (taken.caller.session.remoteSettings.enableConnectProtocol !== true) await turn();
    const ask = { ":method": "CONNECT", ":protocol": "websocket", ":path": "/", ":scheme": "http", ":authority": "a" };
    const stream = taken.caller.session.request(ask, { endStream: false });
    const got = answerOf(stream);
    stream.write("ping");
    await once(stream, "data");
    stream.end();
    expect(await got).toMatchObject({ status: 200, headers: { "x-protocol": "websocket" } });
    const not = await pod({ app: echo, http: true });
    await not.caller.ask();
    expect(not.caller.session.remoteSettings.enableConnectProtocol).toBe(false);
  });
});

describe("whoever answers goes away", () => {
  test("an application that says so has its caller told, and no request is lost", async () => {
    const { caller, app, agentPort } = await pod();
    const times = Math.min(10, Number(process.env["LINK_CUTS"] ?? 10));
    let told = 0;
    let asked = 0;
    let unsent = 0;
    // What a caller's own library had not sent when it was told is the caller's to repeat, as it is without us.
    const ask = async (own: KeptHttp2Caller): Promise<Http2Got | undefined> => {
      try {
        return await own.ask({ method: "POST", body: Buffer.from("x") });
      } catch (error) {
        expect(toAppError(error).message).toMatch(/^reset with 7 /);
        expect(own.goaways).toBeGreaterThan(0);
        unsent += 1;
        return undefined;
      }
    };
    const call = async (): Promise<void> => {
      let own = new KeptHttp2Caller(agentPort);
      for (let count = 0; count < 20 * times;) {
        if (own.goaways > 0 || own.session.closed) {
          told += 1;
          own[Symbol.dispose]();
          own = new KeptHttp2Caller(agentPort);
        }
        const got = await ask(own);
        if (got === undefined) continue;
        expect(got.status).toBe(200);
        count += 1;
        asked += 1;
      }
      own[Symbol.dispose]();
    };
    await caller.ask();
    const calls = Promise.all(Array.from({ length: 10 }, call));
    for (let count = 0; count < times; count += 1) {
      const enough = asked + 100;
      while (asked < enough && asked < 200 * times - 100) await Promise.race([turn(), calls]);
      for (const session of app.sessions) session.close();
    }
    await calls;
    while (caller.goaways === 0) await turn();
    expect(asked).toBe(200 * times);
    expect(app.seen.length).toBe(1 + asked); // once each
    expect(told).toBeGreaterThan(times);
    process.stdout.write(
      `${asked} POSTs while the application went away ${told} times, ${unsent} never sent, 0 failed\n`,
    );
  });

  test("an application whose connection breaks breaks its caller's, but for a laptop's streams", async () => {
    const wait: OnStream = () => undefined;
    const { caller, app, process, agentPort, disposables } = await pod({ filter: forAnn, app: wait, process: wait });
    const [kept, other] = [caller, disposables.use(new KeptHttp2Caller(agentPort))];
    const lost = [kept.ask(), other.ask()];
    const going = kept.ask({ headers: ann });
    going.catch(() => undefined);
    while (app.seen.length < 2 || process.seen.length < 1) await turn();
    for (const session of app.sessions) session.destroy(new Error("dies"));
    await expect(lost[0]).rejects.toThrow(/^reset with 2 /);
    await expect(lost[1]).rejects.toThrow();
    expect(other.socket.destroyed).toBe(true);
    expect(kept.socket.destroyed).toBe(false);
  });

  test("a process that is started anew has what may be sent twice, and the rest is told", async () => {
    let isFirst = true;
    const dieOnce: OnStream = (stream, headers, list) => {
      if (headers[":path"] === "/die" && isFirst) {
        isFirst = false;
        stream.session?.socket.destroy();
      } else {
        answerAs("laptop")(stream, headers, list);
      }
    };
    const { caller } = await pod({ filter: "true", process: dieOnce });
    await caller.ask();
    expect((await caller.ask({ path: "/die" })).body).toMatch(/^laptop GET/);
    isFirst = true;
    const post = await caller.ask({ method: "POST", path: "/die", body: Buffer.from("x") });
    expect(post.status).toBe(502);
    expect(post.body).toMatch(/^telepresence: the laptop's answer to this POST was lost/);
  });

  test("a process that refuses a stream has it answered by the application, whatever the method", async () => {
    const { caller } = await pod({ filter: "true", process: (stream) => stream.close(NGHTTP2_REFUSED_STREAM) });
    const post = await caller.ask({ method: "POST", body: Buffer.from("x") });
    expect(post.body).toMatch(/^app POST \/ 1 /);
  });

  test.each([
    ["answers HTTP/1.1", () => httpServer("old")],
    ["closes at once", () => tcpServer((socket) => socket.destroy())],
    ["ends at once", () => tcpServer((socket) => void socket.end())],
  ])(
    "a process that speaks no HTTP/2 and %s leaves its requests to the application, which is counted",
    async (_n, serve) => {
      const { caller, laptop, log, disposables } = await pod({ filter: "true" });
      const process = disposables.use(await serve());
      laptop.serveWith(process.port);
      const post = await caller.ask({ method: "POST", body: Buffer.from("x") });
      expect(post.body).toMatch(/^app POST \/ 1 /);
      const [line] = log.with("request left to the application");
      expect(line?.["reason"]).toMatch(/^the process does not speak HTTP\/2 without TLS/);
      await laptop.until((intercepts) => intercepts.some(({ refusedByLaptop }) => refusedByLaptop > 0));
    },
  );

  test("an application that speaks no HTTP/2 has the connection cut, as it would be without us", async () => {
    const disposables = new AsyncDisposableStack();
    stack.push(disposables);
    const app = disposables.use(await httpServer("old"));
    const agent = disposables.use(await testAgent({ containerPort: app.port }));
    using caller = new KeptHttp2Caller(agent.agentPorts[0]!);
    await expect(caller.ask()).rejects.toThrow();
    expect(caller.socket.destroyed).toBe(true);
  });

  test("an agent that ends tells its callers, and what is under way is finished", async () => {
    const { caller, agent } = await pod({
      filter: "true",
      process: (stream, headers, list) => void setTimeout(() => answerAs("laptop")(stream, headers, list), 100),
    });
    const going = caller.ask();
    const late = new AbortController();
    const drained = agent.drain(late.signal);
    await once(caller.session, "goaway");
    expect((await going).body).toMatch(/^laptop /);
    while (!caller.socket.destroyed) await turn();
    late.abort();
    await drained.catch(() => undefined);
  });
});

test("of too many callers that ask nothing the one that has rested longest is told to come anew", async () => {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const held = Promise.withResolvers<ServerHttp2Stream>();
  const app = disposables.use(
    await http2Server("app", (stream, headers, list) => {
      if (headers[":path"] === "/held") held.resolve(stream);
      else answerAs("app")(stream, headers, list);
    }),
  );
  const agent = disposables.use(await testAgent({ containerPort: app.port, maxIdleSessions: 2 }));
  const caller = (): KeptHttp2Caller => disposables.use(new KeptHttp2Caller(agent.agentPorts[0]!));
  const busy = caller();
  const going = busy.ask({ path: "/held" });
  const stream = await held.promise;
  const first = caller();
  await first.ask();
  const second = caller();
  await second.ask();
  await first.ask();
  const third = caller();
  await once(second.session, "goaway"); // first has asked once more
  while (!second.socket.destroyed) await turn();
  expect([busy, first, third].map(({ goaways }) => goaways)).toEqual([0, 0, 0]);
  stream.respond({ ":status": 200 });
  stream.end("at last");
  expect((await going).body).toBe("at last");
});

test("HTTP/1.1 that offers h2c in an upgrade is passed on with its offer", async () => {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const app = disposables.use(await tcpServer((socket) => socket.once("data", (bytes: Buffer) => socket.end(bytes))));
  const agent = disposables.use(await testAgent({ containerPort: app.port }));
  const socket = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1" });
  const offer =
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n";
  socket.write(offer);
  const [echoed] = (await once(socket, "data")) as [Buffer];
  expect(echoed.toString()).toBe(offer);
  socket.destroy();
});
