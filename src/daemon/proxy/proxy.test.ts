// Both doors with real sockets: what is the cluster's is dialed by a stand-in for the session, the rest for real.
import { once } from "node:events";
import { createSocket } from "node:dgram";
import {
  createServer as createHttpServer,
  get as httpGet,
  request as httpRequest,
  type IncomingMessage,
} from "node:http";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { PassThrough } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError, type ErrorCode } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { OpenRequest } from "#wire/open.ts";
import { openHttpProxy } from "./http-proxy.ts";
import { isOwnDatagram, openDoor } from "./listener.ts";
import { Reach } from "./reach.ts";
import { openSocks } from "./socks.ts";

const open: { destroy(): void }[] = [];
afterEach(async () => {
  for (const end of open.splice(0)) end.destroy();
  for (const close of closers.splice(0)) await close();
});
const closers: (() => PromiseLike<void> | void)[] = [];

/** The cluster: `hello` is 10.1.0.1, which echoes; `refused.ns` answers with a refusal, and so on. */
const refusals: Readonly<Record<string, ErrorCode>> = {
  "10.1.0.2": "refused",
  "10.1.0.3": "timeout",
  "10.1.0.4": "denied",
  "10.1.0.5": "unreachable",
};
const names: Readonly<Record<string, readonly string[]>> = {
  hello: ["10.1.0.1"],
  "two.ns": ["10.1.0.2", "10.1.0.1"],
  "refused.ns": ["10.1.0.2"],
  "slow.ns": ["10.1.0.3"],
  "denied.ns": ["10.1.0.4"],
  "away.ns": ["10.1.0.5"],
};
const asked: OpenRequest[] = [];

function reach(): Reach {
  asked.length = 0;
  return new Reach({
    open: (request) => {
      asked.push(request);
      const code = request.kind === "tcp" ? refusals[request.target.address] : undefined;
      if (code !== undefined) return Promise.reject(new AppError(code, `it says ${code}`));
      return Promise.resolve(Object.assign(new PassThrough({ allowHalfOpen: true }), fakeFlow()) as never);
    },
    isCluster: ([first]) => first === 10,
    resolve: (name) =>
      name === "nowhere.ns"
        ? Promise.reject(new AppError("not_found", "nowhere.ns does not exist in the cluster"))
        : Promise.resolve(names[name]),
    clock: systemClock,
  });
}

/** Echoes each datagram. */
function fakeFlow(): Pick<TunnelStream, "sendDatagram" | "onDatagram"> {
  let handler: ((datagram: Uint8Array) => void) | undefined;
  return {
    sendDatagram: (datagram) => {
      const copy = Uint8Array.from(datagram);
      setImmediate(() => handler?.(copy));
      return true;
    },
    onDatagram: (given) => (handler = given),
  };
}

async function door(kind: "socks" | "http"): Promise<number> {
  const options = { port: 0, reach: reach(), clock: systemClock, log: silentLogger };
  const opened = await (kind === "socks" ? openSocks(options) : openHttpProxy(options));
  closers.push(() => opened[Symbol.asyncDispose]());
  return opened.port;
}

/** A server on this laptop. */
async function laptopServer(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => serve(socket.on("error", () => undefined)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closers.push(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  open.push(socket.on("error", () => undefined));
  await once(socket, "connect");
  return socket;
}

async function read(socket: Socket, bytes: number): Promise<Buffer> {
  for (;;) {
    const chunk = socket.read(bytes) as Buffer | null;
    if (chunk !== null) return chunk;
    if (socket.readableEnded || socket.destroyed) return Buffer.alloc(0);
    await Promise.race([once(socket, "readable"), once(socket, "end"), once(socket, "close")]);
  }
}

const named = (host: string, port: number): Buffer =>
  Buffer.concat([Uint8Array.of(3, host.length), Buffer.from(host), Uint8Array.of(port >> 8, port & 0xff)]);
const numeric = (host: string, port: number): Buffer =>
  Buffer.concat([Uint8Array.of(1, ...host.split(".").map(Number)), Uint8Array.of(port >> 8, port & 0xff)]);

/** The connection after its request, and the reply's code. */
async function socks(
  port: number,
  address: Buffer,
  command = 1,
): Promise<{ socket: Socket; reply: number; rest: Buffer }> {
  const socket = await dial(port);
  socket.write(Buffer.concat([Uint8Array.of(5, 2, 2, 0), Uint8Array.of(5, command, 0), address]));
  expect([...(await read(socket, 2))]).toEqual([5, 0]);
  const answer = await read(socket, 10);
  return { socket, reply: answer[1] ?? -1, rest: answer.subarray(4) };
}

describe("SOCKS5", () => {
  test("takes a name of the cluster's to the cluster, half-close and all", async () => {
    const { socket, reply } = await socks(await door("socks"), named("hello", 80));
    expect([reply, asked]).toEqual([0, [{ kind: "tcp", target: { address: "10.1.0.1", port: 80 } }]]);
    socket.end("ping");
    expect(await text(socket)).toBe("ping");
  });
  test("takes all else out from the laptop", async () => {
    const target = await laptopServer((socket) => {
      const said: Buffer[] = [];
      socket.on("data", (bytes: Buffer) => said.push(bytes)).on("end", () => socket.end(`got ${said.join("")}`));
    });
    for (const address of [numeric("127.0.0.1", target), named("localhost", target)]) {
      const { socket, reply } = await socks(await door("socks"), address);
      expect(reply).toBe(0);
      socket.end("this");
      expect(await text(socket)).toBe("got this");
      expect(asked).toEqual([]);
    }
  });
  test("tries a name's further addresses when the first refuses", async () => {
    expect((await socks(await door("socks"), named("two.ns", 80))).reply).toBe(0);
    expect(asked).toHaveLength(2);
  });
  test.each([
    ["a refusal", named("refused.ns", 80), 5],
    ["a time-out", named("slow.ns", 80), 6],
    ["what the manager does not dial", named("denied.ns", 80), 2],
    ["an unreachable host", named("away.ns", 80), 4],
    ["a name that is not there", named("nowhere.ns", 80), 4],
    ["no address", Buffer.from([9, 0, 0]), 8],
  ])("says what %s is", async (_what, address, reply) => {
    expect((await socks(await door("socks"), address)).reply).toBe(reply);
  });
  test("says when a port of the laptop's refuses, and that it knows no BIND", async () => {
    const port = await laptopServer(() => undefined);
    await closers.pop()?.();
    expect((await socks(await door("socks"), numeric("127.0.0.1", port))).reply).toBe(5);
    expect((await socks(await door("socks"), named("hello", 80), 2)).reply).toBe(7);
  });
  test("hangs up on a browser, on SOCKS4 and on those who insist on a password", async () => {
    const port = await door("socks");
    for (const said of ["GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "\x04\x01\x00\x50"]) {
      const socket = await dial(port);
      socket.write(said, "latin1");
      expect(await buffer(socket).catch(() => Buffer.alloc(0))).toHaveLength(0);
    }
    const socket = await dial(port);
    socket.write(Uint8Array.of(5, 1, 2));
    expect([...(await read(socket, 2))]).toEqual([5, 0xff]);
  });
  test("carries datagrams to the cluster and from the laptop", async () => {
    const server = createSocket("udp4");
    closers.push(() => void server.close());
    server.on("message", (bytes, from) => server.send(`laptop ${bytes.toString()}`, from.port, from.address));
    server.bind(0, "127.0.0.1");
    await once(server, "listening");
    const { reply, rest, socket } = await socks(await door("socks"), numeric("0.0.0.0", 0), 3);
    expect([reply, [...rest.subarray(0, 4)]]).toEqual([0, [127, 0, 0, 1]]);
    const program = createSocket("udp4");
    program.connect(rest.readUInt16BE(4), "127.0.0.1");
    await once(program, "connect");
    for (const [address, said, answer] of [
      [named("hello", 53), "query", "query"],
      [numeric("127.0.0.1", server.address().port), "query", "laptop query"],
    ] as const) {
      program.send(Buffer.concat([Uint8Array.of(0, 0, 0), address, Buffer.from(said)]));
      const [datagram] = (await once(program, "message")) as [Buffer];
      expect(datagram.subarray(3, 3 + address.length)).toEqual(address);
      expect(datagram.subarray(3 + address.length).toString()).toBe(answer);
    }
    const stranger = createSocket("udp4");
    stranger.bind({ address: "127.0.0.2", port: program.address().port });
    await once(stranger, "listening");
    const forged = Buffer.concat([Uint8Array.of(0, 0, 0), named("two.ns", 53), Buffer.from("query")]);
    await new Promise((resolve) => stranger.send(forged, rest.readUInt16BE(4), "127.0.0.1", resolve));
    program.send(Buffer.concat([Uint8Array.of(0, 0, 0), named("hello", 53), Buffer.from("last")]));
    await once(program, "message");
    expect(asked).toEqual([{ kind: "udp", target: { address: "10.1.0.1", port: 53 } }]);
    const gone = stranger.address();
    await new Promise<void>((resolve) => stranger.close(resolve));
    expect(isOwnDatagram(program.remoteAddress(), program.address(), silentLogger)).toBe(true);
    expect(isOwnDatagram(program.remoteAddress(), gone, silentLogger)).toBe(false);
    program.close();
    socket.destroy();
  });
});

describe("HTTP", () => {
  const ask = (port: number, path: string, headers: Record<string, string> = {}): Promise<[number, string]> =>
    new Promise((resolve, reject) => {
      httpGet({ port, path, headers, agent: false }, (response) => {
        void text(response).then((body) => resolve([response.statusCode ?? 0, body]));
      }).on("error", reject);
    });

  test("tunnels CONNECT, with what was sent right behind it", async () => {
    const socket = await dial(await door("http"));
    socket.write("CONNECT hello:443 HTTP/1.1\r\nHost: hello:443\r\n\r\nearly ");
    const established = "HTTP/1.1 200 Connection established\r\n\r\n";
    expect((await read(socket, established.length)).toString()).toBe(established);
    socket.end("late");
    expect(await text(socket)).toBe("early late");
    expect(asked).toEqual([{ kind: "tcp", target: { address: "10.1.0.1", port: 443 } }]);
  });
  test("passes a request in absolute form on, body and headers, and keeps the connection", async () => {
    const seen: string[] = [];
    const server = createHttpServer((request, response) => {
      void text(request).then((body) => {
        seen.push(
          `${request.method} ${request.url} ${request.headers.host} ${request.headers["proxy-authorization"]} ${body}`,
        );
        response.writeHead(201, { "X-Answer": "yes", "Set-Cookie": ["a=1", "b=2"] });
        response.end("made");
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    closers.push(() => void server.close());
    const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    const port = await door("http");
    for (const body of ["one", "two"]) {
      const request = httpRequest({
        port,
        method: "POST",
        path: `http://${target}/a?b=c`,
        headers: { "Proxy-Authorization": "Basic secret" },
        agent: false,
      });
      request.end(body);
      const [response] = (await once(request, "response")) as [IncomingMessage];
      expect(response.headers).toMatchObject({ "x-answer": "yes", "set-cookie": ["a=1", "b=2"] });
      expect([response.statusCode, await text(response)]).toEqual([201, "made"]);
    }
    expect(seen).toEqual([`POST /a?b=c ${target} undefined one`, `POST /a?b=c ${target} undefined two`]);
  });
  test.each([
    ["refused.ns", 502, "it says refused"],
    ["slow.ns", 504, "it says timeout"],
    ["denied.ns", 403, "it says denied"],
    ["nowhere.ns", 502, "nowhere.ns does not exist in the cluster"],
  ])("answers for %s with %i and why", async (host, status, why) => {
    const port = await door("http");
    expect(await ask(port, `http://${host}/`)).toEqual([status, `telepresence: ${why}\n`]);
    const socket = await dial(port);
    socket.write(`CONNECT ${host}:443 HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(await text(socket)).toContain(`HTTP/1.1 ${status} `);
  });
  // A page may name this port, or have its own name lead here: what its browser sends then is never in absolute form.
  test.each([
    ["by address", "/", { Host: "127.0.0.1" }],
    ["by its own name", "/", { Host: "evil.example", Origin: "http://evil.example" }],
    ["for another name", "/http://hello/", { Host: "hello" }],
    ["for https", "https://hello/", {}],
    ["with a user", "http://user@hello/", {}],
  ])("refuses what a web page can send %s", async (_how, path, headers) => {
    expect((await ask(await door("http"), path, headers))[0]).toBe(400);
    expect(asked).toEqual([]);
  });
  test("goes on when a program leaves in the middle of its request", async () => {
    const port = await door("http");
    for (const path of ["http://hello/", "http://slow.ns/"]) {
      const socket = await dial(port);
      socket.write(`POST ${path} HTTP/1.1\r\nHost: hello\r\nContent-Length: 1000\r\n\r\nonly this`);
      socket.resetAndDestroy();
      await new Promise((resolve) => void socket.once("close", resolve));
    }
    expect((await ask(port, "http://refused.ns/"))[0]).toBe(502);
  });
  test("keeps a body's length, whatever Connection names", async () => {
    const seen = Promise.withResolvers<string>();
    const target = await laptopServer((socket) =>
      socket.once("data", (bytes: Buffer) => seen.resolve(bytes.toString())),
    );
    const socket = await dial(await door("http"));
    const head = `GET http://127.0.0.1:${target}/ HTTP/1.1\r\nHost: x\r\nX-Hop: 1\r\nContent-Length: 6\r\n`;
    socket.write(`${head}Connection: content-length, x-hop\r\n\r\nGET / `);
    expect(await seen.promise).toMatch(/\r\nContent-Length: 6\r\n/);
    expect(await seen.promise).not.toMatch(/X-Hop/);
  });
  test("does not take a request from a refused one's body", async () => {
    const socket = await dial(await door("http"));
    const smuggled = "CONNECT hello:443 HTTP/1.1\r\nHost: hello\r\n\r\n";
    socket.write(`POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`);
    expect(await text(socket)).toMatch(/^HTTP\/1.1 400 [^]*\r\nConnection: close\r\n/);
    expect(asked).toEqual([]);
  });
});

test("a port that is taken is said", async () => {
  const port = await laptopServer(() => undefined);
  const options = { name: "SOCKS5", log: silentLogger };
  await expect(openDoor({ ...options, port }, () => undefined)).rejects.toMatchObject({ code: "port_in_use" });
});

// Whoever writes and closes at once has nobody's connection when we look; what was written would still be sent.
test.each([
  ["another user's programs", () => 12_345],
  ["programs that have gone", () => undefined],
  [
    "programs of which the kernel does not tell",
    () => {
      throw new Error("EMFILE");
    },
  ],
])("%s are turned away", async (_who, ownerOf) => {
  let admitted = 0;
  const options = { name: "SOCKS5", log: silentLogger };
  const guarded = await openDoor({ ...options, port: 0, ownerOf }, () => admitted++);
  closers.push(() => guarded[Symbol.asyncDispose]());
  const socket = connect(guarded.port, "127.0.0.1").on("error", () => undefined);
  await new Promise((resolve) => void socket.once("close", resolve));
  expect(admitted).toBe(0);
});
