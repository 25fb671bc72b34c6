import { once } from "node:events";
import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { connect as connectHttp2 } from "node:http2";
import type { OutgoingHttpHeaders } from "node:http2";
import { connect } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startStandIn } from "./stand-in.ts";

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

const told = { workload: "deployment hello", container: "app", by: "ada@laptop" };
async function started(...ports: readonly number[]): Promise<readonly number[]> {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  const standIn = { ...told, ports: ports.length === 0 ? [0] : [...ports] };
  return disposables.use(await startStandIn({ standIn, clock: systemClock, log: silentLogger })).ports;
}
const kubelet = { "user-agent": "kube-probe/1.34" };
const why = "container app of deployment hello is replaced by ada@laptop";

async function ask(scheme: "http" | "https", port: number, headers: OutgoingHttpHeaders = {}, method = "GET") {
  const make = scheme === "http" ? requestHttp : requestHttps;
  const outgoing = make({ port, host: "127.0.0.1", method, headers, agent: false, rejectUnauthorized: false });
  outgoing.end(method === "POST" ? Buffer.alloc(100_000) : undefined);
  const [response] = (await once(outgoing, "response")) as [AsyncIterable<Buffer> & { readonly statusCode: number }];
  let text = "";
  for await (const bytes of response) text += bytes.toString();
  return { status: response.statusCode, text };
}

async function askHttp2(port: number, headers: OutgoingHttpHeaders) {
  const session = connectHttp2(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({ ":method": "POST", ":path": "/grpc.health.v1.Health/Check", ...headers });
    let answer: OutgoingHttpHeaders = {};
    let trailers: OutgoingHttpHeaders = {};
    stream.on("response", (got) => (answer = got));
    stream.on("trailers", (got) => (trailers = got));
    stream.end(Buffer.alloc(5));
    const pieces: Buffer[] = [];
    for await (const bytes of stream) pieces.push(bytes as Buffer);
    return {
      status: answer[":status"],
      grpc: answer["grpc-status"] ?? trailers["grpc-status"],
      body: Buffer.concat(pieces),
    };
  } finally {
    session.destroy();
  }
}

async function raw(port: number, text: string): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.on("error", () => undefined);
  let got = "";
  socket.on("data", (bytes) => (got += bytes.toString()));
  if (text !== "") socket.write(text);
  await once(socket, "close");
  return got;
}

describe("the stand-in", () => {
  test.each(["http", "https"] as const)(
    "answers the kubelet over %s, and tells others who replaced it",
    async (scheme) => {
      const [port = 0] = await started();
      expect((await ask(scheme, port, kubelet)).status).toBe(200);
      expect(await ask(scheme, port)).toEqual({ status: 503, text: expect.stringContaining(why) });
      expect((await ask(scheme, port, {}, "POST")).status).toBe(503);
    },
  );

  test("answers the kubelet over gRPC, and tells others that it is unavailable", async () => {
    const [port = 0] = await started();
    const grpc = { "content-type": "application/grpc" };
    const serving = Buffer.from([0, 0, 0, 0, 2, 8, 1]);
    expect(await askHttp2(port, { ...grpc, ...kubelet })).toEqual({ status: 200, grpc: "0", body: serving });
    expect(await askHttp2(port, grpc)).toMatchObject({ status: 200, grpc: "14" });
    const plain = await askHttp2(port, { ":path": "/" });
    expect(plain.status).toBe(503);
    expect(plain.body.toString()).toContain(why);
  });

  test("closes what is no HTTP, and what says nothing", async () => {
    const [port = 0] = await started();
    expect(await raw(port, "\0\0\0\0 hello\r\n")).toBe("");
    expect(await raw(port, "")).toBe("");
  });

  test("listens on the ports that it can have", async () => {
    const [taken = 0] = await started();
    expect(await started(taken, 0)).toHaveLength(1);
  });
});
