import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import type { AddressInfo, Server, Socket } from "node:net";
import { connect, createServer } from "node:net";
import { describe, expect, test } from "vitest";
import { FakeApiServer, sendJson } from "./api-server.fake.ts";
import { pods } from "./objects.ts";
import { openPortForward } from "./port-forward.ts";

const { signal } = new AbortController();

async function listen(server: Server): Promise<AsyncDisposable & { readonly port: number }> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => sockets.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("a proxy-url", () => {
  test("of kind http is used for requests and WebSockets, with its credentials", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { metadata: { name: "x" } });
    const seen: string[] = [];
    const proxy = createHttpServer();
    proxy.on("connect", (request, client: Socket) => {
      seen.push(`${request.url} ${request.headers["proxy-authorization"]}`);
      const upstream = connect(server.port, "127.0.0.1", () => {
        client.write("HTTP/1.1 200 Connection established\r\nX-Some: header\r\n\r\n");
        client.pipe(upstream).pipe(client);
      });
      client.on("error", () => upstream.destroy());
      upstream.on("error", () => client.destroy());
    });
    await using listening = await listen(proxy);
    const kube = server.open({ proxyUrl: `http://user:p%40ss@127.0.0.1:${listening.port}` });
    expect((await kube.get(pods, { name: "x" }, signal)).metadata.name).toBe("x");
    (await openPortForward(kube, { namespace: "n", pod: "p", port: 1, signal })).on("error", () => undefined).destroy();
    const expected = `127.0.0.1:${server.port} Basic ${Buffer.from("user:p@ss").toString("base64")}`;
    expect(seen[0]).toBe(expected);
    kube.close();
  });
  test("of kind socks5 leads through, with user and password", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = (_request, response) => sendJson(response, { metadata: { name: "x" } });
    const steps: string[] = [];
    const proxy = createServer((client) => {
      client.on("error", () => undefined);
      client.once("data", (hello: Buffer) => {
        steps.push(hello.toString("hex"));
        client.write(Buffer.from([5, 2]));
        client.once("data", (login: Buffer) => {
          steps.push(login.subarray(2).toString("latin1"));
          client.write(Buffer.from([1, 0]));
          client.once("data", (request: Buffer) => {
            steps.push(request.subarray(5, -2).toString());
            const upstream = connect(request.readUInt16BE(request.length - 2), "127.0.0.1", () => {
              client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
              client.pipe(upstream).pipe(client);
            });
            upstream.on("error", () => client.destroy());
          });
        });
      });
    });
    await using listening = await listen(proxy);
    const kube = server.open({ proxyUrl: `socks5://me:pw@127.0.0.1:${listening.port}` });
    expect((await kube.get(pods, { name: "x" }, signal)).metadata.name).toBe("x");
    expect(steps).toEqual(["05020002", "me\u0002pw", "127.0.0.1"]);
    kube.close();
  });
  test("that refuses is named", async () => {
    const proxy = createHttpServer();
    proxy.on("connect", (_request, client: Socket) => client.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"));
    await using listening = await listen(proxy);
    await using server = await new FakeApiServer().listen();
    const kube = server.open({ proxyUrl: `http://127.0.0.1:${listening.port}` });
    await expect(kube.get(pods, { name: "x" }, signal)).rejects.toThrow(
      `proxy http://127.0.0.1:${listening.port} does not lead to 127.0.0.1:${server.port}: it answered 407`,
    );
  });
});
