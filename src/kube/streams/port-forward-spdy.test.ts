// Users with only `create` on pods/portforward: kubectl goes on over SPDY, and so do we.
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import { describe, expect, test } from "vitest";
import { FakeApiServer } from "#kube/api-server.fake.ts";
import type { Kube } from "#kube/client.ts";
import { mayForward, openPortForward } from "./port-forward.ts";
import type { FakeSpdyConnection } from "./spdy-server.fake.ts";
import { acceptSpdy, frameTypes, refusal } from "./spdy-server.fake.ts";

const { signal } = new AbortController();
const open = (kube: Kube): Promise<Duplex> => openPortForward(kube, { namespace: "n", pod: "p", port: 8081, signal });

async function forwarded(): Promise<{
  readonly server: FakeApiServer;
  readonly connection: FakeSpdyConnection;
  readonly stream: Duplex;
}> {
  const server = await new FakeApiServer().listen();
  const connected = Promise.withResolvers<FakeSpdyConnection>();
  acceptSpdy(server, connected.resolve);
  const stream = await open(server.open());
  const connection = await connected.promise;
  while (connection.streams.length < 2) await once(connection.socket, "data");
  return { server, stream, connection };
}

describe("openPortForward() where a WebSocket is refused", () => {
  test("opens a stream for errors and one for data", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    expect(connection.streams).toEqual([
      { id: 1, headers: { streamtype: "error", port: "8081", requestid: "0" } },
      { id: 3, headers: { streamtype: "data", port: "8081", requestid: "0" } },
    ]);
    stream.destroy();
  });
  test("carries bytes both ways and ends when the pod's side ends", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    let received = 0;
    const sent = Buffer.alloc(3 * 1024 * 1024 + 5, 7);
    connection.onData = (id, bytes) => {
      connection.send(id, bytes);
      received += bytes.length;
      if (received === sent.length) connection.send(id, "", true);
    };
    connection.onControl = (type) => {
      if (type === frameTypes.reset) connection.send(1, "", true);
    };
    stream.write(sent);
    const closed = once(stream, "close");
    expect((await buffer(stream)).equals(sent)).toBe(true);
    await closed;
  });
  test("ends the connection when our side ends, after what was written", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    const seen: string[] = [];
    connection.onData = (id, bytes) => seen.push(`${id} ${bytes.toString()}`);
    stream.resume().end("bye");
    await once(connection.socket, "end");
    expect(seen).toEqual(["3 bye"]);
  });
  test("sends nothing before the server's answer, which would be lost", async () => {
    await using server = await new FakeApiServer().listen();
    const asked = Promise.withResolvers<FakeSpdyConnection>();
    acceptSpdy(server, (connection) => {
      connection.onStream = ({ id }) => {
        if (id === 3) asked.resolve(connection);
        else connection.reply(id);
      };
    });
    const stream = await open(server.open());
    stream.write("first");
    const connection = await asked.promise;
    connection.onData = (id, bytes) => connection.send(id, bytes);
    connection.reply(3);
    expect((await once(stream, "data"))[0]).toEqual(Buffer.from("first"));
    stream.destroy();
  });
  test("brakes the writer while the server does not read", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    connection.socket.pause();
    stream.on("error", () => undefined);
    let accepted = 0;
    for (let turn = 0; turn < 200; turn++) {
      while (stream.write(Buffer.alloc(64 * 1024)) && accepted < 64 * 1024 * 1024) accepted += 64 * 1024;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(accepted).toBeLessThan(16 * 1024 * 1024);
    stream.destroy();
  });
  test("stops reading from the server while nobody reads the stream", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    const chunk = Buffer.alloc(1024 * 1024);
    for (let sent = 0; sent < 32; sent++) connection.send(3, chunk);
    stream.read(0);
    await once(stream, "readable");
    await new Promise((resolve) => setImmediate(resolve));
    expect(stream.readableLength).toBeLessThan(8 * 1024 * 1024);
    expect(connection.socket.writableLength).toBeGreaterThan(8 * 1024 * 1024);
    stream.destroy();
  });
  test.each(["before", "after"])(
    "turns the error stream into an error, if it comes %s the data's end",
    async (when) => {
      const { server, connection, stream } = await forwarded();
      await using _server = server;
      const failed = once(stream.resume(), "error");
      if (when === "after") connection.send(3, "", true);
      connection.send(1, "error forwarding port 8081 to pod x: dial tcp4 127.0.0.1:8081: ");
      connection.send(1, "connect: connection refused", true);
      expect((await failed)[0]).toMatchObject({
        code: "refused",
        message: "port-forward to n/p:8081 was refused: nothing listens on that port in the pod",
      });
    },
  );
  test("fails when the error comes with the answer, as containerd's does", async () => {
    await using server = await new FakeApiServer().listen();
    acceptSpdy(server, (connection) => {
      connection.onStream = ({ id }) => {
        connection.reply(id);
        if (id === 1) return;
        connection.send(3, "", true);
        connection.send(1, "dial tcp4 127.0.0.1:8081: connect: connection refused", true);
      };
    });
    const stream = await open(server.open());
    expect((await once(stream.resume(), "error"))[0]).toMatchObject({ code: "refused" });
  });
  test.each([
    ["the connection dies", (connection: FakeSpdyConnection) => connection.socket.destroy(), "was cut"],
    [
      "its stream is reset",
      (connection: FakeSpdyConnection) => connection.control(frameTypes.reset, [3, 5]),
      "failed: the node gave the connection up",
    ],
  ])("fails at once when %s", async (_what, harm, said) => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    const failed = once(stream.resume(), "error");
    harm(connection);
    expect((await failed)[0]).toMatchObject({ message: `port-forward to n/p:8081 ${said}` });
  });
  test("fails when the server breaks the protocol", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    const failed = once(stream.resume(), "error");
    connection.socket.write(Buffer.from("GET / HTTP/1.1\xff\xff\r\n".repeat(4), "latin1").map((byte) => byte | 0x80));
    expect((await failed)[0]).toMatchObject({ code: "protocol" });
  });
  test("answers pings, and goes on after frames that mean nothing to it", async () => {
    const { server, connection, stream } = await forwarded();
    await using _server = server;
    const answered = new Promise<string>((resolve) => {
      connection.onControl = (type, body) => resolve(`${type} ${body.readUInt32BE(0)}`);
    });
    connection.control(frameTypes.settings, [0]);
    connection.control(frameTypes.windowUpdate, [3, 65_536]);
    connection.control(frameTypes.goAway, [3, 0]);
    connection.control(frameTypes.ping, [2]);
    expect(await answered).toBe(`${frameTypes.ping} 2`);
    connection.send(3, "still", true);
    connection.send(1, "", true);
    expect((await buffer(stream)).toString()).toBe("still");
  });
});

describe("the choice of the way", () => {
  test("is remembered by namespace, until it is refused", async () => {
    await using server = await new FakeApiServer().listen();
    acceptSpdy(server, () => undefined);
    const tried: string[] = [];
    const grant = server.refuseUpgrade;
    server.refuseUpgrade = (request) => {
      tried.push(`${request.method} ${request.url?.split("/")[4]}`);
      return grant(request);
    };
    const kube = server.open();
    for (const namespace of ["a", "a", "b"]) {
      (await openPortForward(kube, { namespace, pod: "p", port: 1, signal })).destroy();
    }
    expect(tried.splice(0)).toEqual(["GET a", "POST a", "POST a", "GET b", "POST b"]);
    const nobody = { code: 403, message: refusal("create") };
    server.refuseUpgrade = (request) => (request.headers.upgrade === "websocket" ? undefined : nobody);
    (await openPortForward(kube, { namespace: "a", pod: "p", port: 1, signal })).on("error", () => undefined).destroy();
  });
  test("is SPDY where a server or a proxy knows no WebSocket", async () => {
    await using server = await new FakeApiServer().listen();
    acceptSpdy(server, () => undefined);
    for (const code of [400, 426]) {
      server.refuseUpgrade = ({ headers }) =>
        headers.upgrade === "websocket" ? { code, message: "Upgrade request required" } : undefined;
      (await open(server.open())).destroy();
    }
    server.refuseUpgrade = () => undefined;
    server.acceptProtocol = () => false;
    (await open(server.open())).destroy();
  });
  test("is none where the answer would be the same", async () => {
    await using server = await new FakeApiServer().listen();
    server.refuseUpgrade = ({ method }) => ({ code: method === "GET" ? 404 : 500, message: 'pods "p" not found' });
    await expect(open(server.open())).rejects.toMatchObject({ code: "not_found" });
  });
  test("names both verbs when neither is granted", async () => {
    await using server = await new FakeApiServer().listen();
    server.refuseUpgrade = ({ method }) => ({ code: 403, message: refusal(method === "GET" ? "get" : "create") });
    await expect(open(server.open())).rejects.toMatchObject({
      code: "forbidden",
      message: 'user "alice" may neither get nor create pods/portforward in namespace n',
      hint: expect.stringMatching(
        /auth can-i create pods --subresource=portforward -n n` and ask .* both verbs$/,
      ) as string,
    });
  });
  test("counts as granted with either verb", async () => {
    await using server = await new FakeApiServer().listen();
    for (const granted of ["get", "create", "none"]) {
      server.answer = ({ body }, response) => {
        const allowed = body.includes(`"verb":"${granted}"`);
        response.writeHead(201, { "Content-Type": "application/json" }).end(JSON.stringify({ status: { allowed } }));
      };
      expect(await mayForward(server.open(), "n", signal)).toBe(granted !== "none");
    }
  });
});
