// gRPC-web through a preview: the messages and the trailers stand in the body (RPCs of a browser, which has no trailers), so
// all that counts is that each frame comes as it was sent, when it was sent. Frames are made and read here by the protocol's
// own rules: a flag (0x80 for trailers), four bytes of length, the message; `-text` is base64 of each piece by itself.
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { connect } from "node:http2";
import type { ClientHttp2Session, IncomingHttpHeaders } from "node:http2";
import { request as requestSecurely } from "node:https";
import type { AddressInfo } from "node:net";
import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { PreviewView } from "#wire/cloud-api.ts";
import { PreviewLab } from "./preview-lab.ts";

let lab: PreviewLab;
let server: Server;
let session: ClientHttp2Session;
let preview: PreviewView;
let cookie: string;
let answer: (request: IncomingMessage, response: ServerResponse) => void;

beforeAll(async () => {
  lab = await PreviewLab.open({ tls: true });
  const ann = await lab.person("ann");
  const laptop = await lab.laptop();
  await lab.join(laptop, ann);
  server = createServer((request, response) => answer(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  preview = await lab.preview(laptop, ann, { port: (server.address() as AddressInfo).port, banner: true });
  cookie = await lab.enter(preview, await lab.session(ann));
  session = connect(`https://127.0.0.1:${lab.cloud.port}`, { rejectUnauthorized: false });
});
afterAll(async () => {
  session.destroy();
  await lab[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});

function frame(flag: number, message: string): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(flag, 0);
  head.writeUInt32BE(Buffer.byteLength(message), 1);
  return Buffer.concat([head, Buffer.from(message)]);
}
const trailers = frame(0x80, "grpc-status: 0\r\ngrpc-message: \r\n");

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readable;
}

async function call(by: "HTTP/1.1" | "HTTP/2", type: string, message: Buffer): Promise<Answer> {
  const own = { "content-type": type, "x-grpc-web": "1", accept: type, "grpc-timeout": "10S", cookie };
  const origin = `https://${preview.host}:${lab.cloud.port}`;
  const headers = { ...own, origin, "sec-fetch-site": "same-origin", "sec-fetch-dest": "empty" };
  const path = "/shop.Cart/Add";
  if (by === "HTTP/2") {
    const pseudo = { ":authority": new URL(origin).host, ":path": path, ":method": "POST" };
    const stream = session.request({ ...pseudo, ...headers });
    stream.end(message);
    const [head] = (await once(stream, "response")) as [IncomingHttpHeaders & { ":status": number }];
    return { status: head[":status"], headers: head, body: stream };
  }
  const place = { host: "127.0.0.1", port: lab.cloud.port, path, method: "POST", agent: false } as const;
  const sent = requestSecurely({
    ...place,
    rejectUnauthorized: false,
    headers: { host: new URL(origin).host, ...headers },
  });
  sent.end(message);
  const [came] = (await once(sent, "response")) as [IncomingMessage];
  return { status: came.statusCode ?? 0, headers: came.headers, body: came };
}

const shapes = ["HTTP/1.1", "HTTP/2"].flatMap((by) =>
  ["application/grpc-web+proto", "application/grpc-web-text+proto"].map((type) => [by, type] as const),
);

test.each(shapes)("a unary call by %s, as %s, comes whole both ways, its trailers in the body", async (by, type) => {
  const coded = (bytes: Buffer): Buffer => (type.includes("-text") ? Buffer.from(bytes.toString("base64")) : bytes);
  const asked = coded(frame(0, "\u0000\u0001 two eggs"));
  let got: { readonly body: Buffer; readonly headers: IncomingHttpHeaders } | undefined;
  answer = (request, response) => {
    void buffer(request).then((body) => {
      got = { body, headers: request.headers };
      response.writeHead(200, { "content-type": type, "access-control-expose-headers": "grpc-status" });
      response.end(coded(Buffer.concat([frame(0, "added"), trailers])));
    });
  };
  const { status, headers, body } = await call(by as "HTTP/2", type, asked);
  expect([status, headers["content-type"]]).toEqual([200, type]);
  expect(await buffer(body)).toEqual(coded(Buffer.concat([frame(0, "added"), trailers])));
  expect(got?.body).toEqual(asked);
  expect(got?.headers).toMatchObject({
    "content-type": type,
    "x-grpc-web": "1",
    "grpc-timeout": "10S",
    "x-telepresence-intercept-id": preview.interceptId,
  });
});

test.each(shapes)(
  "a server's stream by %s, as %s, comes message by message, and ends with its status",
  async (by, type) => {
    const coded = (bytes: Buffer): Buffer => (type.includes("-text") ? Buffer.from(bytes.toString("base64")) : bytes);
    const open = Promise.withResolvers<ServerResponse>();
    answer = (request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": type });
      open.resolve(response);
      response.flushHeaders();
    };
    const { body } = await call(by as "HTTP/2", type, coded(frame(0, "all of them")));
    const response = await open.promise;
    for (const message of ["first", "second", "third"]) {
      response.write(coded(frame(0, message)));
      expect((await once(body, "data"))[0]).toEqual(coded(frame(0, message))); // before the next one is sent
    }
    const failed = coded(frame(0x80, "grpc-status: 5\r\ngrpc-message: none%20left\r\n"));
    response.end(failed);
    expect(await buffer(body)).toEqual(failed);
  },
);

test("a failure without a message has its status in the head", async () => {
  answer = (request, response) => {
    request.resume();
    const head = { "content-type": "application/grpc-web+proto", "grpc-status": "16", "grpc-message": "who are you" };
    response.writeHead(200, head).end();
  };
  const { headers, body } = await call("HTTP/2", "application/grpc-web+proto", frame(0, ""));
  expect(headers).toMatchObject({ "grpc-status": "16", "grpc-message": "who are you" });
  expect((await buffer(body)).length).toBe(0);
});
