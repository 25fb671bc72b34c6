// The page's calls, as a browser and as others make them; the processes behind are real servers.
import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { connect, createServer as createTcpServer, type AddressInfo, type Server } from "node:net";
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { PassThrough, type Duplex } from "node:stream";
import { buffer, json } from "node:stream/consumers";
import { setImmediate as turn } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { AppError } from "#base/error.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { ExchangeView, InspectorEvent } from "#wire/inspector-api.ts";
import { Exchange } from "./exchange.ts";
import { harPieces } from "./har.ts";
import { Live } from "./live.ts";
import { Recorder, usualLimits } from "./recorder.ts";
import { Redaction } from "./redaction.ts";
import { replay } from "./replay.ts";
import { InspectorServer } from "./server.ts";

let stack = new AsyncDisposableStack();
let recorder: Recorder;
let inspector: InspectorServer;
/** Where repeated requests go. */
const places = { laptop: 0, pod: 0 };

beforeEach(async () => {
  recorder = new Recorder(systemClock, { ...usualLimits, bodyBytes: 4096 });
  recorder.start();
  inspector = stack.use(
    await InspectorServer.open({
      recorder,
      replayedTo: recorder,
      redaction: new Redaction(["x-internal*"]),
      clock: systemClock,
      log: silentLogger,
      assets: new Map([["/", { type: "text/html", body: Buffer.from("<p>page</p>") }]]),
      intercepts: () => ({ intercepts: [], connected: true }),
      dial: async (_route, to) => {
        const socket = connect({ port: places[to], host: "127.0.0.1", allowHalfOpen: true });
        try {
          await once(socket, "connect");
        } catch (cause) {
          throw new AppError("refused", `nothing listens at ${to}`, { cause });
        }
        return socket;
      },
    }),
  );
});
afterEach(async () => {
  const ending = stack;
  stack = new AsyncDisposableStack();
  await ending.disposeAsync();
});

type Listening = Pick<Server, "listen" | "close" | "address">;
async function listen(server: Listening): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server as Server, "listening");
  stack.defer(() => new Promise<void>((done) => void server.close(() => done())));
  return (server.address() as AddressInfo).port;
}

const answering = (name: string): ReturnType<typeof createServer> =>
  createServer(async (request, response) => {
    const body = (await buffer(request)).toString();
    response.setHeader("set-cookie", "sid=1");
    response.setHeader("content-type", "application/json");
    response.setHeader("content-encoding", "gzip");
    response.end(gzipSync(JSON.stringify({ by: name, path: request.url, body, token: 7 })));
  });

/** A caller's request through an intercept whose process listens at `target`. */
async function call(
  target: number,
  options: RequestOptions & { readonly body?: string } = {},
): Promise<IncomingMessage> {
  const port = await listen(
    createTcpServer({ allowHalfOpen: true }, (caller) => {
      const process = connect({ port: target, host: "127.0.0.1", allowHalfOpen: true });
      process.once("connect", () => {
        joinDuplex(caller, process);
        const route = { intercept: "hello", containerPort: 80, podName: "p", caller: "10.0.0.9:1", target: "here" };
        recorder.tap(route, caller, process);
      });
    }),
  );
  const sending = httpRequest({ port, host: "127.0.0.1", agent: false, ...options });
  sending.end(options.body);
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  await buffer(response);
  return response;
}

const archived = {
  method: "GET",
  host: "h",
  target: "/",
  requestHeaders: [],
  answerHeaders: [],
  answerTrailers: [],
  startedAt: 0,
  requestBody: { bytes: 0, cut: false, hidden: false, text: "" },
  answerBody: { bytes: 0, cut: false, hidden: false, text: "" },
} as unknown as ExchangeView;

interface Asked {
  readonly status: number | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: unknown;
}

async function ask(method: string, path: string, headers: Record<string, string> = {}): Promise<Asked> {
  const url = new URL(inspector.url);
  const token = { authorization: `Bearer ${url.hash.slice(1)}` };
  const sending = httpRequest({ port: url.port, host: "127.0.0.1", method, path, headers: { ...token, ...headers } });
  sending.end();
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await json(response) };
}

const view = async (id: number, query = ""): Promise<ExchangeView> =>
  (await ask("GET", `/api/exchanges/${id}${query}`)).body as ExchangeView;

describe("a request of which secrets are a part", () => {
  test("is told without them, and with them when they are asked for", async () => {
    const secret = {
      authorization: "Bearer s3cret",
      cookie: "a=s3cret",
      "x-internal-key": "s3cret",
      "x-plain": "shown",
    };
    const inner = JSON.stringify({ token: 's3cret "quoted" s3cret', level: "info" });
    const body = JSON.stringify({
      password: 's3cret "quoted" s3cret',
      user: { api_key: "s3cret", name: "ann" },
      log: inner,
    });
    const server = createServer((_request, response) => {
      response.writeHead(200, { "set-cookie": "sid=s3cret", "content-encoding": "gzip" });
      response.end(gzipSync('{"token":"s3cret","by":"ann"}'));
    });
    await call(await listen(server), {
      method: "POST",
      path: "/login?token=s3cret&q=1",
      headers: { ...secret, "content-type": "application/json" },
      body,
    });
    const hidden = await view(1);
    expect(JSON.stringify(hidden)).not.toContain("s3cret");
    expect(hidden.requestHeaders).toContainEqual({ name: "x-plain", value: "shown" });
    expect(hidden.target).toBe("/login?token=•••&q=1");
    expect(hidden.requestBody.text).toBe(
      String.raw`{"password":"•••","user":{"api_key":"•••","name":"ann"},"log":"{\"token\":\"•••\",\"level\":\"info\"}"}`,
    );
    expect(JSON.stringify((await ask("GET", "/api/har")).body)).not.toContain("s3cret");
    const shown = await view(1, "?reveal=1");
    expect(shown.requestBody.text).toBe(body);
    expect(shown.requestHeaders).toContainEqual({ name: "authorization", value: "Bearer s3cret" });
    expect(shown.answerBody).toMatchObject({ coding: "gzip", text: '{"token":"s3cret","by":"ann"}' });
  });
});

describe("what is secret", () => {
  const redaction = new Redaction();
  test.each([
    ["a query", () => redaction.target("/a?user%5Bpass%77ord%5D=s3cret&q=1"), "/a?user%5Bpass%77ord%5D=•••&q=1"],
    [
      "the address of a redirect",
      () => redaction.value("location", "https://a/cb?q=1&id_token=s3cret#access_token=s3cret&b=2").text,
      "https://a/cb?q=1&id_token=•••#access_token=•••&b=2",
    ],
    [
      "server-sent events",
      () => redaction.body('data: {"token":"s3cret","n":1}\n\n', "text/event-stream").text,
      'data: {"token":"•••","n":1}\n\n',
    ],
    [
      "a form in parts",
      () =>
        redaction.body(
          '--x\r\nContent-Disposition: form-data; name="password"\r\n\r\ns3\r\ncret\r\n--x\r\n' +
            'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain\r\n\r\nshown\r\n--x--\r\n',
          "multipart/form-data; boundary=x",
        ).text,
      '--x\r\nContent-Disposition: form-data; name="password"\r\n\r\n•••\r\n--x\r\n' +
        'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain\r\n\r\nshown\r\n--x--\r\n',
    ],
  ])("in %s is hidden", (_where, hidden, expected) => {
    expect(hidden()).toBe(expected);
  });

  test.each([
    ["application/x-www-form-urlencoded", `${"password".repeat(30_000)}"=1`],
    ["multipart/form-data; boundary=x", 'name="password"\r\n'.repeat(30_000)],
    ["application/json", `{"token":"${'\\"token\\": '.repeat(30_000)}`],
  ])("is looked for in time that grows with the body, %s", (type, body) => {
    const { user } = process.cpuUsage();
    redaction.body(body, type);
    expect((process.cpuUsage().user - user) / 1000).toBeLessThan(1000);
  });
});

test("an archive can be asked for of as many requests as are kept", async () => {
  await call(await listen(answering("laptop")), { path: "/kept" });
  const ids = Array.from({ length: usualLimits.exchanges }, (_, at) => 1_000_000 - at);
  const { status, body } = await ask("GET", `/api/har?ids=${[...ids, 1].join(",")}`);
  expect(status).toBe(200);
  expect((body as { log: { entries: unknown[] } }).log.entries).toHaveLength(1);
});

test("an archive is made one entry after the other", () => {
  let made = 0;
  const views = (function* (): Generator<ExchangeView> {
    for (; made < 3; made += 1) yield archived;
  })();
  const pieces = harPieces(views, "1.0.0");
  const [first, second] = [pieces.next().value, pieces.next().value];
  expect(made).toBe(0);
  const archive = JSON.parse([first, second, ...pieces].join("")) as { log: { entries: unknown[] } };
  expect(archive.log.entries).toHaveLength(3);
});

test("a page that does not read is not told of what is forgotten by then", async () => {
  const few = new Recorder(systemClock, { ...usualLimits, exchanges: 10 });
  few.start();
  const clock = new FakeClock();
  const intercepts = (): { intercepts: []; connected: true } => ({ intercepts: [], connected: true });
  using live = new Live({ recorder: few, redaction: new Redaction(), intercepts, clock });
  const lines: string[] = [];
  const page = Object.assign(new EventEmitter(), {
    writableNeedDrain: true,
    destroyed: false,
    write: (line: string) => lines.push(line),
    end: () => undefined,
  });
  live.add(page as unknown as ServerResponse);
  const [caller, process] = [new PassThrough(), new PassThrough()];
  few.tap({ intercept: "i", containerPort: 1, podName: "p", caller: "c", target: "t" }, caller, process);
  for (let at = 0; at < 5000; at += 1) {
    caller.write(`GET /${at} HTTP/1.1\r\n\r\n`);
    process.write("HTTP/1.1 204 No Content\r\n\r\n");
    if (at % 50 === 49) await turn();
  }
  await expect.poll(() => [...few.exchanges].at(-1)?.line.target).toBe("/4999");
  page.writableNeedDrain = false;
  await clock.advance(100);
  expect(lines.filter((line) => line.includes("exchanges")).length).toBeLessThan(3);
  expect(lines.join("")).toContain("/4999");
});

describe("repeating a request", () => {
  test("to the pod and to the laptop gives answers to compare", async () => {
    places.laptop = await listen(answering("laptop"));
    places.pod = await listen(answering("pod"));
    await call(places.laptop, { method: "PUT", path: "/a?b", headers: { "transfer-encoding": "chunked" }, body: "hi" });
    const pod = (await ask("POST", "/api/exchanges/1/replay?to=pod")).body as ExchangeView;
    expect(pod).toMatchObject({ id: 2, repeats: 1, answeredBy: "pod", status: 200, state: "done", method: "PUT" });
    expect(pod.answerBody.text).toContain('"by":"pod","path":"/a?b","body":"hi"');
    const laptop = (await ask("POST", "/api/exchanges/1/replay?to=laptop")).body as ExchangeView;
    expect(laptop.answerBody.text).toContain('"by":"laptop","path":"/a?b","body":"hi"');
    expect(laptop).toMatchObject({ id: 3, repeats: 1, answeredBy: "laptop" });
  });

  test("of HTTP/2 speaks HTTP/2", async () => {
    const server = createHttp2Server();
    server.on("stream", (stream: ServerHttp2Stream, headers) => {
      stream.respond({ ":status": 203, "x-method": headers[":method"] });
      stream.pipe(stream);
    });
    places.pod = await listen(server as unknown as Listening);
    const { connect: connectHttp2 } = await import("node:http2");
    const port = await listen(
      createTcpServer((caller) => {
        const process = connect({ port: places.pod, host: "127.0.0.1" });
        process.once("connect", () => {
          joinDuplex(caller, process);
          recorder.tap({ intercept: "g", containerPort: 1, podName: "p", caller: "c", target: "t" }, caller, process);
        });
      }),
    );
    const client = connectHttp2(`http://127.0.0.1:${port}`);
    const stream = client.request({ ":method": "POST", ":path": "/pkg.Svc/Do", te: "trailers" });
    stream.end("message");
    await buffer(stream);
    client.close();
    const { body, status } = await ask("POST", "/api/exchanges/1/replay?to=pod");
    expect(status).toBe(200);
    expect(body).toMatchObject({ version: "HTTP/2", status: 203, repeats: 1, answerBody: { text: "message" } });
  });

  test("whose body was not kept as a whole, or that nobody takes, says so", async () => {
    const target = await listen(answering("laptop"));
    places.laptop = 1; // nobody listens
    await call(target, { method: "POST", body: "x".repeat(5000) });
    await call(target);
    const cut = await ask("POST", "/api/exchanges/1/replay?to=laptop");
    expect([cut.status, cut.body]).toEqual([400, { error: expect.stringContaining("cannot be sent again") as string }]);
    const refused = await ask("POST", "/api/exchanges/2/replay?to=laptop");
    expect(refused.body).toEqual({ error: "nothing listens at laptop" });
  });
});

describe("a request that cannot be repeated", () => {
  const known = (state: "done" | "cut", fields: readonly { name: string; value: string }[] = []): Exchange => {
    const route = { intercept: "i", containerPort: 1, podName: "p", caller: "c", target: "t" };
    const line = { method: "POST", target: "/", host: "h", version: "HTTP/2" } as const;
    const origin = { answeredBy: "laptop" } as const;
    const exchange = new Exchange({ id: 1, route, line, fields, startedAt: 0, maxBodyBytes: 100, origin });
    exchange.requestBody.add(Buffer.from("half"));
    exchange.state = state;
    return exchange;
  };
  const send = async (exchange: Exchange, far: Duplex): Promise<unknown> =>
    await replay(
      exchange,
      "laptop",
      { recorder, dial: () => Promise.resolve(far), clock: systemClock },
      AbortSignal.timeout(5000),
    );

  test("since its caller broke off in the middle is refused", async () => {
    await expect(send(known("cut"), new PassThrough())).rejects.toThrow("was not sent as a whole");
  });
  test("since nobody could send its header lines leaves no connection behind", async () => {
    const type = { name: "content-type", value: "text/plain" };
    const exchange = known("done", [type, type]);
    exchange.times.requestEnd = 1;
    const far = new PassThrough();
    await expect(send(exchange, far)).rejects.toThrow("content-type");
    expect(far.destroyed).toBe(true);
  });
});

test("a page is told of what was kept before, and of what happens", async () => {
  const target = await listen(answering("laptop"));
  await call(target, { path: "/before" });
  const url = new URL(inspector.url);
  const headers = { authorization: `Bearer ${url.hash.slice(1)}` };
  const sending = httpRequest({ port: url.port, host: "127.0.0.1", path: "/api/events", headers });
  sending.end();
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  const events: InspectorEvent[] = [];
  let held = "";
  response.setEncoding("utf8");
  response.on("data", (chunk: string) => {
    const lines = (held + chunk).split("\n");
    held = lines.pop() ?? "";
    for (const line of lines) events.push(JSON.parse(line) as InspectorEvent);
  });
  const seen = (): string[] =>
    events.flatMap((event) => (event.kind === "exchanges" ? event.changed.map((one) => one.target) : []));
  await expect.poll(seen).toContain("/before");
  await call(target, { path: "/after" });
  await expect.poll(seen).toContain("/after");
  await ask("POST", "/api/clear");
  await expect
    .poll(() => events.findLast((event) => event.kind === "exchanges"))
    .toMatchObject({ oldest: 3, changed: [] });
  expect(inspector.pages).toBe(1);
  response.destroy();
  await expect.poll(() => inspector.pages).toBe(0);
});

describe("strangers", () => {
  test.each([
    ["without the token", { authorization: "" }, 401],
    ["with another token", { authorization: `Bearer ${"A".repeat(43)}` }, 401],
    ["by another name for this address (DNS rebinding)", { host: "evil.example" }, 403],
    ["from another page", { origin: "http://127.0.0.1:1" }, 403],
    ["from a sandboxed page", { origin: "null" }, 403],
  ])("%s get nothing", async (_who, headers, status) => {
    await call(await listen(answering("laptop")), { path: "/private" });
    for (const [method, path] of [
      ["GET", "/api/events"],
      ["GET", "/api/exchanges/1"],
      ["GET", "/api/har"],
      ["POST", "/api/clear"],
      ["POST", "/api/exchanges/1/replay?to=laptop"],
    ] as const) {
      const answer = await ask(method, path, headers);
      expect([path, answer.status]).toEqual([path, status]);
      expect(JSON.stringify(answer.body)).not.toContain("private");
    }
    expect([...recorder.exchanges]).toHaveLength(1);
  });

  test("cannot frame the page, run scripts in it, or find it elsewhere than on the loopback", async () => {
    const { port } = new URL(inspector.url);
    const response = await fetch(`http://127.0.0.1:${port}/`);
    expect(await response.text()).toBe("<p>page</p>");
    const policy = response.headers.get("content-security-policy") ?? "";
    for (const rule of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"])
      expect(policy).toContain(rule);
    expect(policy).not.toContain("unsafe");
    const elsewhere = connect({ port: Number(port), host: "127.0.0.2" });
    const [error] = (await once(elsewhere, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNREFUSED");
  });
});

test("a browser is started with an address that is good once", async () => {
  const openUrl = inspector.newOpenUrl() ?? "";
  const first = await fetch(openUrl, { redirect: "manual" });
  expect([first.status, first.headers.get("location")]).toEqual([303, new URL(inspector.url).hash.replace("#", "/#")]);
  expect((await fetch(openUrl, { redirect: "manual" })).status).toBe(401);
});
