// A cloud server that wants more of a cluster than it was given: its tunnel leads to the ingresses of previews that laptops of
// its own have registered, and nowhere else.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createWebSocketStream, WebSocketServer } from "ws";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import type { Manager } from "#manager/manager.ts";
import { TestLaptop, anything, helloOf, namedServer, never, testManager } from "#test/flow/manager/harness.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { openSession } from "#tunnel/session.ts";
import type { TunnelSession } from "#tunnel/tunnel.ts";
import { tunnelProtocol } from "#wire/cloud-tunnel-api.ts";
import { managerBudgetBytes, maxStreams } from "#wire/limits.ts";
import type { OpenRequest } from "#wire/open.ts";

const stack = new AsyncDisposableStack();
let manager: Manager;
let ingress: Awaited<ReturnType<typeof namedServer>>;
/** The server's end of the tunnel that Ann's laptop has asked for. */
let tunnel: TunnelSession;
let privateId = "";

beforeAll(async () => {
  manager = stack.use(await testManager({ guard: anything, lookup: () => Promise.resolve(["127.0.0.1"]) }));
  ingress = stack.use(await namedServer("ingress"));
  const [hers, another] = [await listen(), await listen()];
  const ann = await join("ann@laptop", hers.port);
  tunnel = await hers.tunnel;
  const zoe = await join("zoe@laptop", another.port);
  await another.tunnel;
  await put(ann, "of-ann", 8080);
  privateId = await put(zoe, "of-zoe", 9090);
});
afterAll(() => stack.disposeAsync());

/** A server that takes every tunnel. */
async function listen(): Promise<{ readonly port: number; readonly tunnel: Promise<TunnelSession> }> {
  const { promise, resolve } = Promise.withResolvers<TunnelSession>();
  const server = createServer().listen(0, "127.0.0.1");
  const webSockets = new WebSocketServer({ server, handleProtocols: () => tunnelProtocol });
  webSockets.on("connection", (webSocket) => {
    const session = openSession({
      transport: createWebSocketStream(webSocket),
      role: "accepter",
      expectRole: "manager",
      hello: helloOf("cloud"),
      limits: { maxStreams, budgetBytes: managerBudgetBytes },
      clock: systemClock,
      log: silentLogger,
      signal: never,
    });
    resolve(session);
  });
  stack.defer(() => {
    for (const webSocket of webSockets.clients) webSocket.terminate();
    webSockets.close();
    server.closeAllConnections();
    server.close();
  });
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, tunnel: promise };
}

async function join(client: string, port: number): Promise<TestLaptop> {
  const laptop = stack.use(await TestLaptop.connect(manager, client));
  laptop.onIncoming = (incoming) => {
    if (incoming.request.kind !== "cloud") return incoming.reject("refused", "not asked here");
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    socket.once("connect", () => joinDuplex(incoming.accept(), socket));
  };
  const wish = { url: `http://localhost:${port}`, clusterId: "c", team: "t", token: "tpm_x" };
  await laptop.rpc.call("cloud.join", wish, never);
  return laptop;
}

async function put(laptop: TestLaptop, previewId: string, containerPort: number): Promise<string> {
  const { id: interceptId } = await laptop.intercept(previewId, containerPort);
  const to = { host: "ingress.shop", port: ingress.port };
  await laptop.rpc.call("preview.put", { previewId, interceptId, ingress: to }, never);
  return interceptId;
}

test("what was registered is reached", async () => {
  const stream = await tunnel.open({ kind: "preview", previewId: "of-ann" }, never);
  stream.end("hello");
  expect(await text(stream)).toBe("ingress:hello");
});

test.each<[string, () => OpenRequest]>([
  ["an address of its own choice", () => ({ kind: "tcp", target: { address: "127.0.0.1", port: ingress.port } })],
  ["datagrams", () => ({ kind: "udp", target: { address: "127.0.0.1", port: ingress.port } })],
  ["echoes", () => ({ kind: "echo", target: { address: "127.0.0.1", port: 0 } })],
  ["what laptops may call", () => ({ kind: "rpc", api: "manager" })],
  ["a preview that is none", () => ({ kind: "preview", previewId: "guess" })],
  ["a preview of another server's", () => ({ kind: "preview", previewId: "of-zoe" })],
  ["requests of another server's intercept", () => ({ kind: "inspect", interceptId: privateId })],
  ["a laptop's own loopback", () => ({ kind: "cloud", url: "http://localhost:1" })],
])("%s is refused", async (_what, request) => {
  const before = ingress.connections.size;
  await expect(tunnel.open(request(), never)).rejects.toMatchObject({
    message: expect.stringMatching(/may not open streams|no such|not found/) as string,
  });
  expect(ingress.connections.size).toBe(before);
});
