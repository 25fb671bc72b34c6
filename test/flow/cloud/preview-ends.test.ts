// Ends of a preview that are slow, or go away in the middle, by both versions of HTTP and by WebSocket: nobody is held up but
// the one who is slow, what is held for him is bounded, and whoever goes takes what was his with him on the whole way.
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { connect } from "node:http2";
import type { ClientHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";

let lab: PreviewLab;
let server: Server;
let session: ClientHttp2Session;
let preview: PreviewView;
let answer: (request: IncomingMessage, response: ServerResponse) => void;

beforeAll(async () => {
  lab = await PreviewLab.open({ tls: true });
  const ann = await lab.person("ann");
  const laptop = await lab.laptop();
  await lab.join(laptop, ann);
  server = createServer((request, response) => answer(request, response));
  server.on("upgrade", (_request, socket: Duplex) => {
    socket.on("error", () => undefined);
    socket.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    flood(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  preview = await lab.preview(laptop, ann, { port: (server.address() as AddressInfo).port, access: "public" });
  session = connect(`https://127.0.0.1:${lab.cloud.port}`, { rejectUnauthorized: false });
});
afterAll(async () => {
  session.destroy();
  await lab[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

const chunk = Buffer.alloc(256 * 1024, "x");
const endless = 512 * 1024 * 1024;
const flooded = { bytes: 0, gone: Promise.withResolvers<void>() };

/** Writes as quickly as it is taken, until it is gone. */
function flood(to: Duplex | ServerResponse): void {
  flooded.bytes = 0;
  flooded.gone = Promise.withResolvers<void>();
  const more = (): void => {
    while (!to.destroyed && flooded.bytes < endless) {
      flooded.bytes += chunk.length;
      if (!to.write(chunk)) return;
    }
  };
  to.on("drain", more);
  to.once("close", () => flooded.gone.resolve());
  more();
}

/** Bytes that the application got rid of until nothing moved any more. */
function standstill(): Promise<number> {
  let before = -1;
  let still = 0;
  return lab.until(
    () => Promise.resolve(flooded.bytes),
    (now) => {
      still = now === before ? still + 1 : 0;
      before = now;
      return still === 10;
    },
  );
}

/** A visitor who sends this and then only what the test says. */
const raw = (method: string, more: string): Duplex => {
  const socket = connectTls({ port: lab.cloud.port, host: "127.0.0.1", rejectUnauthorized: false });
  socket.on("error", () => undefined);
  socket.write(`${method} / HTTP/1.1\r\nHost: ${preview.host}:${lab.cloud.port}\r\n${more}\r\n`);
  return socket;
};
const stream = (method: string): Duplex => {
  const headers = { ":authority": `${preview.host}:${lab.cloud.port}`, ":path": "/", ":method": method };
  const opened = session.request(headers, { endStream: method === "GET" });
  return opened.on("error", () => undefined);
};
const websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\n";

describe.each<readonly [string, () => Duplex]>([
  ["HTTP/1.1", () => raw("GET", "")],
  ["HTTP/2", () => stream("GET")],
  ["a WebSocket", () => raw("GET", websocket)],
])("a visitor by %s who does not read", (_by, visit) => {
  test("brakes the application, holds up nobody else, and takes the answer with him when he goes", async () => {
    answer = ({ url }, response) => (url === "/other" ? response.end("other") : flood(response));
    const slow = visit();
    await once(slow, "readable");
    expect(await standstill()).toBeLessThan(64 * 1024 * 1024);
    expect((await lab.visit(preview, "/other")).body).toBe("other");
    slow.destroy();
    await flooded.gone.promise;
  });
});

describe.each<readonly [string, () => Duplex]>([
  ["HTTP/1.1 with a length", () => raw("POST", "Content-Length: 1000\r\n")],
  ["HTTP/1.1 in chunks", () => raw("POST", "Transfer-Encoding: chunked\r\n")],
  ["HTTP/2", () => stream("POST")],
])("an upload by %s", (by, visit) => {
  const half = by.endsWith("chunks") ? "4\r\nhalf\r\n" : "half";

  test("is not whole for the application when its visitor goes in the middle", async () => {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const came = Promise.withResolvers<string>();
    answer = (request) => {
      request.once("data", (data: Buffer) => came.resolve(String(data)));
      request.on("error", () => undefined);
      request.once("close", () => resolve(request.complete));
    };
    const visitor = visit();
    visitor.write(half);
    expect(await came.promise).toBe("half");
    visitor.destroy();
    expect(await promise).toBe(false);
  });

  test("is answered by us when the application goes in the middle", async () => {
    answer = (request) => request.once("data", () => request.socket.destroy());
    const visitor = visit();
    visitor.write(half);
    const [head] = (await once(visitor, by === "HTTP/2" ? "response" : "data")) as [Buffer | { ":status": number }];
    expect(Buffer.isBuffer(head) ? Number(String(head).slice(9, 12)) : head[":status"]).toBe(502);
    visitor.destroy();
  });
});

test("answers break off with the tunnel, and the preview says that it sleeps", async () => {
  answer = (_request, response) => void response.writeHead(200, { "content-length": 100 }).write("half");
  const [first, second] = [raw("GET", ""), stream("GET")];
  await Promise.all([once(first, "data"), once(second, "response")]);
  const ends = [first, second].map((visitor) => new Promise((resolve) => visitor.once("close", resolve)));
  second.resume();
  await lab.manager[Symbol.asyncDispose]();
  await Promise.all(ends);
  expect((second as unknown as { rstCode: number }).rstCode).not.toBe(0);
  expect((await lab.visit(preview)).status).toBe(503);
});
