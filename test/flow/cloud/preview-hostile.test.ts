// An application behind a preview that answers what no server should: its visitor gets an answer or an end, by both
// versions of HTTP, and nobody else notices. Regression: trailers of one connection ended the whole cloud server.
import { once } from "node:events";
import { connect } from "node:http2";
import type { ClientHttp2Session, IncomingHttpHeaders } from "node:http2";
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { text } from "node:stream/consumers";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";

let lab: PreviewLab;
let ingress: Server;
let visitor: ClientHttp2Session;
let preview: PreviewView;
/** What the ingress sends as soon as something comes. */
let answer = "";
let onConnection: (socket: Socket) => void = () => undefined;

beforeAll(async () => {
  lab = await PreviewLab.open({ tls: true });
  const ann = await lab.person("ann");
  const laptop = await lab.laptop();
  await lab.join(laptop, ann);
  ingress = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.write(answer, "latin1"));
    onConnection(socket);
  });
  ingress.listen(0, "127.0.0.1");
  await once(ingress, "listening");
  preview = await lab.preview(laptop, ann, { port: (ingress.address() as AddressInfo).port, access: "public" });
  visitor = connect(`https://127.0.0.1:${lab.cloud.port}`, { rejectUnauthorized: false });
});
afterAll(async () => {
  visitor.destroy();
  await lab[Symbol.asyncDispose]();
  ingress.close();
});

async function byHttp2(): Promise<string> {
  const stream = visitor.request({ ":authority": `${preview.host}:${lab.cloud.port}`, ":path": "/" });
  const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
  return `${headers[":status"]} ${await text(stream)}`;
}
async function byHttp1(): Promise<string> {
  const { status, body } = await lab.visit(preview, "/", { headers: { accept: "*/*" } });
  return `${status} ${body}`;
}

const chunked = "connection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n";
const whole = "connection: close\r\ncontent-length: 2\r\n\r\nok";

test.each([
  ["a connection's header behind the body", `200 OK\r\n${chunked}connection: x\r\nx-a: b\r\n\r\n`, "200 ok"],
  ["framing behind the body", `200 OK\r\n${chunked}transfer-encoding: chunked\r\nset-cookie: a=b\r\n\r\n`, "200 ok"],
  ["two addresses", `200 OK\r\nlocation: /a\r\nlocation: /b\r\n${whole}`, "200 ok"],
  ["two types", `200 OK\r\ncontent-type: a/b\r\ncontent-type: c/d\r\n${whole}`, "200 ok"],
  ["names of JavaScript's", `200 OK\r\nconstructor: a\r\n__proto__: a\r\n__proto__: b\r\n${whole}`, "200 ok"],
  ["signs in its reason", `200 a\x01\x7fb\r\n${whole}`, "200 ok"],
  ["a status that is none", `099 OK\r\n${whole}`, "502 The cluster's ingress did not answer"],
  ["a status above all", `999 OK\r\nset-cookie: a=b\r\n${whole}`, "502 The cluster's ingress did not answer"],
  [
    "another protocol",
    "101 x\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nbytes",
    "502 The cluster's ingress did not",
  ],
  ["a head without end", `200 OK\r\nx: ${"a".repeat(20_000)}\r\n${whole}`, "502 The cluster's ingress did not answer"],
])("an answer with %s is answered, and the next visitor too", async (_what, sent, expected) => {
  answer = `HTTP/1.1 ${sent}`;
  for (const visit of [byHttp2, byHttp1]) expect(await visit()).toContain(expected);
  answer = `HTTP/1.1 200 OK\r\n${whole}`;
  for (const visit of [byHttp2, byHttp1]) expect(await visit()).toBe("200 ok");
});

test("an answer that does not wait for its request's end takes the connection to the ingress with it", async () => {
  answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
  const gone = new Promise<void>((resolve) => {
    onConnection = (socket) => socket.once("close", () => resolve());
  });
  const socket = connectTls({ port: lab.cloud.port, host: "127.0.0.1", rejectUnauthorized: false });
  socket.write(`POST / HTTP/1.1\r\nHost: ${preview.host}:${lab.cloud.port}\r\nContent-Length: 1000000\r\n\r\nbegun`);
  expect(String((await once(socket, "data"))[0])).toContain("HTTP/1.1 200 OK");
  await gone;
  socket.destroy();
});

test("a WebSocket's refusal that breaks off has nothing of ours in it", async () => {
  answer = "HTTP/1.1 200 OK\r\n\r\nhalf";
  onConnection = (socket) => socket.once("data", () => setImmediate(() => socket.resetAndDestroy()));
  const socket = connectTls({ port: lab.cloud.port, host: "127.0.0.1", rejectUnauthorized: false });
  socket.on("error", () => undefined);
  socket.write(
    `GET / HTTP/1.1\r\nHost: ${preview.host}:${lab.cloud.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
  );
  const came = await text(socket).catch(() => "");
  expect(came.match(/HTTP\/1\.1/g)?.length ?? 0).toBeLessThan(2);
});
