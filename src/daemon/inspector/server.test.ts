// The page's calls, as a browser and as others make them; the processes behind are real servers.
import { once } from "node:events";
import { createServer, request as httpRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { connect, createServer as createTcpServer, type AddressInfo, type Server } from "node:net";
import { buffer, json } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { ExchangeView, InspectorEvent } from "#wire/inspector-api.ts";
import { Recorder, usualLimits } from "./recorder.ts";
import { Redaction } from "./redaction.ts";
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
      redaction: new Redaction(["x-internal*"]),
      clock: systemClock,
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
