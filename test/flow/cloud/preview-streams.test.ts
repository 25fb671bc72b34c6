// What is long, large, slow or broken off on its way through a preview, and what somebody sends to break it.
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { systemClock } from "#base/clock.ts";
import type { Clock } from "#base/clock.ts";
import type { TestLaptop } from "#test/flow/manager/harness.ts";
import { removePreview } from "#cloud/previews/previews.ts";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";
import { roundsOf } from "#base/rounds.fake.ts";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";
import type { LoggedIn } from "./preview-lab.ts";

let lab: PreviewLab;
let ann: LoggedIn;
let laptop: TestLaptop;
let server: Server;
let port: number;
let connections = 0;
let answer: (request: IncomingMessage, response: ServerResponse) => void;
let preview: PreviewView;

/** chosen: of visitor, server, manager, laptop and ingress, which are all in this process. */
const mostHeldBytes = 48 * 2 ** 20;

/** What the server does every ten seconds, for the test to do at once; and what has passed that did not. */
const checks: (() => void)[] = [];
let skewMs = 0;
const clock: Clock = {
  ...systemClock,
  now: () => systemClock.now() + skewMs,
  every: (periodMs, callback) => {
    if (periodMs === 10_000) checks.push(callback);
    return systemClock.every(periodMs, callback);
  },
};

beforeAll(async () => {
  lab = await PreviewLab.open({ clock });
  ann = await lab.person("ann");
  laptop = await lab.laptop();
  await lab.join(laptop, ann);
  server = createServer((incoming, response) => answer(incoming, response));
  server.on("connection", () => connections++);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  port = (server.address() as AddressInfo).port;
  preview = await lab.preview(laptop, ann, { port, access: "public", banner: true });
});
afterAll(async () => {
  await lab[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

function send(
  path: string,
  { method = "GET", headers = {} }: { method?: string; headers?: Record<string, string> } = {},
) {
  const host = `${preview.host}:${lab.cloud.port}`;
  return request({
    host: "127.0.0.1",
    port: lab.cloud.port,
    path,
    method,
    headers: { host, ...headers },
    agent: false,
  });
}

test("events come when they are sent, and a visitor who goes takes the request with him", async () => {
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  answer = (_request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: 1\n\n");
    response.once("close", resolve);
  };
  const sent = send("/events").end();
  const [stream] = (await once(sent, "response")) as [IncomingMessage];
  expect(String((await once(stream, "data"))[0])).toBe("data: 1\n\n");
  sent.destroy();
  await gone;
});

test("what lasts ends within seconds of the login that it came by, and a public preview's does not", async () => {
  const own = await lab.preview(laptop, ann, { port });
  const cookie = await lab.enter(own, await lab.session(ann));
  const sending: ServerResponse[] = [];
  answer = (_request, response) => {
    sending.push(response.writeHead(200, { "content-type": "text/event-stream" }));
    response.write("1");
  };
  const listen = async (host: string, headers: Readonly<Record<string, string>>): Promise<IncomingMessage> => {
    const [stream] = (await once(
      send("/events", { headers: { host: `${host}:${lab.cloud.port}`, ...headers } }).end(),
      "response",
    )) as [IncomingMessage];
    await once(stream, "data");
    return stream.on("error", () => undefined);
  };
  const [theirs, anybodys] = [await listen(own.host, { cookie }), await listen(preview.host, {})];
  for (const check of checks) check();
  sending[0]?.write("2");
  expect(String((await once(theirs, "data"))[0])).toBe("2");
  await lab.database.run("DELETE FROM browser_sessions");
  skewMs += 4000;
  const ended = new Promise((resolve) => theirs.once("close", resolve));
  for (const check of checks) check();
  await ended;
  expect(anybodys.destroyed).toBe(false);
  anybodys.destroy();
});

/** `npm run check` has no time for a gigabyte. */
const uploadMegabytes = roundsOf(64, 1024);

test("an upload of 1 GB comes whole, and little of it is held on its way", { timeout: 120_000 }, async () => {
  const [size, chunk] = [uploadMegabytes * 2 ** 20, randomBytes(2 ** 20)];
  const [sentSum, gotSum] = [createHash("sha1"), createHash("sha1")];
  let got = 0;
  answer = (incoming, response) => {
    incoming.on("data", (data: Buffer) => {
      got += data.length;
      gotSum.update(data);
      incoming.pause(); // slower than what comes, so that somebody has to wait
      setImmediate(() => setImmediate(() => setImmediate(() => incoming.resume())));
    });
    incoming.on("end", () => response.end(`${got} ${gotSum.digest("hex")}`));
  };
  const before = heldBytes();
  const startMs = performance.now();
  const sent = send("/upload", { method: "POST", headers: { "content-length": String(size) } });
  const most = { onTheWay: 0, held: 0 };
  for (let at = 0; at < size; at += chunk.length) {
    chunk.writeUInt32BE(at / chunk.length); // no two alike, so that an exchanged one shows
    sentSum.update(chunk);
    sent.write(chunk);
    await once(sent, "drain"); // it is more than a stream takes without; afterwards the chunk may change
    most.onTheWay = Math.max(most.onTheWay, at + chunk.length - got);
    if (at % (32 * 2 ** 20) === 0) most.held = Math.max(most.held, heldBeyond(before, mostHeldBytes));
  }
  sent.end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  expect(await text(response)).toBe(`${size} ${sentSum.digest("hex")}`);
  // oxlint-disable-next-line no-console -- a figure
  console.log(`[figure] upload of ${uploadMegabytes} MB: ${Math.round(performance.now() - startMs)} ms`, most);
  expect(most.onTheWay).toBeLessThan(32 * 2 ** 20); // windows and buffers of four ways
  expect(most.held).toBeLessThan(mostHeldBytes);
});

test("chunks of an unknown length are chunks again, trailers too", async () => {
  answer = (incoming, response) => {
    response.writeHead(200, { trailer: "x-sum" });
    incoming.pipe(response, { end: false });
    incoming.on("end", () => {
      response.addTrailers({ "x-sum": "7" });
      response.end();
    });
  };
  const sent = send("/echo", { method: "PUT", headers: { "transfer-encoding": "chunked" } });
  sent.write("abc");
  sent.end("def");
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  expect([await text(response), response.trailers]).toEqual(["abcdef", { "x-sum": "7" }]);
});

test("connections to the ingress are kept, and one that was closed meanwhile costs nobody an answer", async () => {
  answer = (_request, response) => response.end("ok");
  await lab.visit(preview);
  const before = connections;
  for (let i = 0; i < 5; i++) await lab.visit(preview);
  expect(connections).toBe(before);
  server.closeIdleConnections();
  expect((await lab.visit(preview)).body).toContain("ok");
});

test("a WebSocket goes both ways, marked for the intercept", async () => {
  const sockets = new WebSocketServer({ noServer: true });
  let mark: unknown;
  server.once("upgrade", (incoming, socket, head) => {
    mark = incoming.headers["x-telepresence-intercept-id"];
    sockets.handleUpgrade(incoming, socket, head, (webSocket) =>
      webSocket.on("message", (data) => webSocket.send(data)),
    );
  });
  const webSocket = new WebSocket(`ws://127.0.0.1:${lab.cloud.port}/live`, {
    headers: { host: `${preview.host}:${lab.cloud.port}` },
  });
  await once(webSocket, "open");
  webSocket.send("hello");
  expect(String((await once(webSocket, "message"))[0])).toBe("hello");
  expect(mark).toBe(preview.interceptId);
  webSocket.close();
  await once(webSocket, "close");
  sockets.close();
});

test("a page ends with the banner, and nothing else does", async () => {
  const html = "<!doctype html><p>hello</p>";
  answer = ({ url, headers: asked }, response) => {
    const type = url === "/json" ? "application/json" : "text/html; charset=utf-8";
    if (url === "/coded") response.setHeader("content-encoding", "gzip");
    response.setHeader("x-asked", String(asked["accept-encoding"]));
    response.writeHead(200, { "content-type": type, "content-length": html.length }).end(html);
  };
  const page = await lab.visit(preview, "/", { headers: { "accept-encoding": "gzip" } });
  expect(page.body).toMatch(/^<!doctype html><p>hello<\/p>\n<p align="center" style=".*Preview of hello by ann, ours/);
  expect(page.headers).toMatchObject({ "content-length": String(page.body.length), "x-asked": "identity" });
  for (const path of ["/json", "/coded"]) expect((await lab.visit(preview, path)).body).toBe(html);
  const fetched = await lab.visit(preview, "/", { headers: { "sec-fetch-dest": "empty" } });
  expect(fetched.body).toBe(html);
  const head = await lab.visit(preview, "/", { method: "HEAD" });
  expect([head.body, head.headers["content-length"]]).toEqual(["", String(html.length)]);
});

test("an ingress that does not answer, or breaks off, is told of", async () => {
  answer = (_request, response) => response.socket?.destroy();
  const failed = await lab.visit(preview, "/", { headers: { accept: "*/*" } });
  expect([failed.status, failed.body]).toEqual([502, "The cluster's ingress did not answer: it broke off.\n"]);
  answer = (_request, response) => {
    response.writeHead(200, { "content-length": 100 });
    response.write("half", () => response.socket?.destroy());
  };
  await expect(lab.visit(preview)).rejects.toThrow("aborted");
  const closed = await lab.preview(laptop, ann, { port: 1, access: "public" });
  expect((await lab.visit(closed)).status).toBe(502);
});

/** What is answered to exactly these bytes, and what of them came to the ingress. */
async function raw(bytes: string, until: "answer" | "close" = "answer"): Promise<{ status: string; came: string[] }> {
  const came: string[] = [];
  answer = (incoming, response) => {
    came.push(`${incoming.method} ${incoming.url}`);
    incoming.resume();
    incoming.on("end", () => response.end("ok"));
  };
  const socket = connect(lab.cloud.port, "127.0.0.1");
  socket.write(bytes.replaceAll("HOST", `${preview.host}:${lab.cloud.port}`).replaceAll("\n", "\r\n"), "latin1");
  if (until === "answer") socket.once("data", () => socket.end());
  return { status: (await text(socket)).split(" ")[1] ?? "closed", came };
}

test.each([
  ["length and coding", "POST / HTTP/1.1\nHost: HOST\nContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\nGET /x"],
  ["two lengths", "POST / HTTP/1.1\nHost: HOST\nContent-Length: 1\nContent-Length: 2\n\nab"],
  ["a list of lengths", "POST / HTTP/1.1\nHost: HOST\nContent-Length: 1, 1\n\na"],
  ["a length with a sign", "POST / HTTP/1.1\nHost: HOST\nContent-Length: +1\n\na"],
  ["another coding", "POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: gzip, chunked\n\n0\n\n"],
  ["a hidden coding", "POST / HTTP/1.1\nHost: HOST\nTransfer-Encoding: xchunked\n\n0\n\n"],
  ["a folded line", "GET / HTTP/1.1\nHost: HOST\nX-A: b\n  Transfer-Encoding: chunked\n\n"],
  ["a space before the colon", "GET / HTTP/1.1\nHost: HOST\nContent-Length : 5\n\nhello"],
  ["a sign that none may have", "GET / HTTP/1.1\nHost: HOST\nX-A: a\u0000b\n\n"],
  ["another host's address", "GET http://evil.example/ HTTP/1.1\nHost: HOST\n\n"],
  ["two hosts", "GET / HTTP/1.1\nHost: HOST\nHost: evil.example\n\n"],
  ["no host", "GET / HTTP/1.1\n\n"],
  ["a tunnel", "CONNECT evil.example:80 HTTP/1.1\nHost: HOST\n\n"],
  ["an echo", "TRACE / HTTP/1.1\nHost: HOST\n\n"],
  ["another protocol", "GET / HTTP/1.1\nHost: HOST\nConnection: Upgrade\nUpgrade: h2c\n\n"],
])("a request with %s goes nowhere", async (_what, bytes) => {
  const { status, came } = await raw(bytes);
  expect([came, /^(400|421|closed)$/.test(status)]).toEqual([[], true]);
});

test("what is smuggled behind a request is a request of its own", async () => {
  const next = "GET /b HTTP/1.1\nHost: HOST\nConnection: close\n\n";
  expect((await raw(`POST /a HTTP/1.1\nHost: HOST\nContent-Length: 3\n\nabc${next}`, "close")).came).toEqual([
    "POST /a",
    "GET /b",
  ]);
  expect((await raw(`GET /a HTTP/1.1\nHost: HOST\nContent-Length: 4\n\nGET ${next}`, "close")).came).toEqual([
    "GET /a",
    "GET /b",
  ]);
});

test("a preview sleeps with its laptop, and is over with its intercept", async () => {
  answer = (_request, response) => response.end("ok");
  const other = await lab.laptop("bea@laptop");
  const bea = await lab.person("bea");
  await lab.join(other, bea);
  const [sleeper, ended] = [
    await lab.preview(other, bea, { port, access: "public" }),
    await lab.preview(laptop, ann, { port: port + 2, access: "public" }),
  ];
  expect((await lab.visit(sleeper)).body).toBe("ok");
  const stateOf = async () =>
    ((await (await lab.api(ann, "GET", `/api/previews/${sleeper.id}`)).json()) as PreviewView).state;
  await lab.until(stateOf, (state) => state === "live");
  await other[Symbol.asyncDispose]();
  await lab.until(stateOf, (state) => state === "sleeping");
  const asleep = await lab.visit(sleeper);
  expect([asleep.status, asleep.headers["retry-after"], asleep.body]).toEqual([
    503,
    "10",
    expect.stringContaining("sleeps"),
  ]);

  const [, name = ""] = ended.interceptId.split(":");
  await laptop.remove(`${laptop.sessionId}:${name}`);
  await lab.until(
    () => lab.visit(ended, "/", { headers: { accept: "*/*" } }),
    ({ status, body }) => status === 404 && body === "This preview is over: its intercept has ended.\n",
  );
  expect((await lab.api(ann, "DELETE", `/api/previews/${sleeper.id}`)).status).toBe(403);
  expect((await lab.api(bea, "DELETE", `/api/previews/${sleeper.id}`)).status).toBe(200);
  expect((await lab.visit(sleeper)).body).toContain("This preview was removed.");
  expect((await lab.visit({ host: "no-such.preview.localhost" })).status).toBe(404);
});

test("a preview that nobody used for a week says so", async () => {
  const unused = await lab.preview(laptop, ann, { port: port + 3, access: "public" });
  await removePreview(lab.database, unused.id, "expired", systemClock.wallMs());
  const { status, body } = await lab.visit(unused);
  expect([status, body]).toEqual([404, expect.stringContaining("This preview has expired")]);
});

test("what is being answered when the server is told to end comes whole", async () => {
  await using ending = await PreviewLab.open();
  const bea = await ending.person("bea");
  const theirs = await ending.laptop();
  await ending.join(theirs, bea);
  const own = await ending.preview(theirs, bea, { port, access: "public" });
  const begun = Promise.withResolvers<ServerResponse>();
  answer = (_request, response) => {
    response.write("first,");
    begun.resolve(response);
  };
  const headers = { host: `${own.host}:${ending.cloud.port}` };
  const sent = request({ host: "127.0.0.1", port: ending.cloud.port, headers, agent: false }).end();
  const [stream] = (await once(sent, "response")) as [IncomingMessage];
  await once(stream, "data");
  const ended = ending.cloud[Symbol.asyncDispose]();
  const rest = text(stream);
  (await begun.promise).end("last");
  expect(await rest).toBe("last");
  await ended;
});
