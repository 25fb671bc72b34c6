// Reads real connections of node:http, node:http2 and raw sockets, joined as an intercept joins them.
import { once } from "node:events";
import { createServer, request as httpRequest, type Server } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server, type ServerHttp2Stream } from "node:http2";
import { connect, createServer as createTcpServer, type AddressInfo, type Server as TcpServer } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { buffer } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { BodyCopy } from "./body-copy.ts";
import type { Exchange } from "./exchange.ts";
import { FrameReader } from "./http2-frames.ts";
import { Recorder, type RecorderLimits } from "./recorder.ts";

const route = { intercept: "hello", containerPort: 8080, podName: "hello-1", caller: "10.0.0.9:4000", target: "here" };
let stack = new AsyncDisposableStack();
afterEach(async () => {
  const ending = stack;
  stack = new AsyncDisposableStack();
  await ending.disposeAsync();
});

type Listening = Pick<TcpServer, "listen" | "close" | "address" | "once">;

async function listen(server: Listening): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server as TcpServer, "listening");
  stack.defer(() => new Promise<void>((done) => void server.close(() => done())));
  return (server.address() as AddressInfo).port;
}

/** As an intercept is: each connection goes to `target`, joined and read along. */
async function intercepted(target: number, recorder: Recorder): Promise<number> {
  return await listen(
    createTcpServer({ allowHalfOpen: true }, (caller) => {
      const process = connect({ port: target, host: "127.0.0.1", allowHalfOpen: true });
      process.once("connect", () => {
        joinDuplex(caller, process);
        recorder.tap(route, caller, process);
      });
    }),
  );
}

function recording(limits: Partial<RecorderLimits> = {}): { recorder: Recorder; clock: FakeClock } {
  const clock = new FakeClock();
  const recorder = new Recorder(clock, { exchanges: 100, bytes: 1 << 24, bodyBytes: 1 << 16, ...limits });
  recorder.start();
  return { recorder, clock };
}

const settled = async (recorder: Recorder, count: number): Promise<Exchange[]> => {
  const all = (): Exchange[] => [...recorder.exchanges].filter(({ state }) => state !== "open");
  for (let round = 0; round < 5000 && all().length < count; round += 1) await turn();
  return all();
};

async function raw(port: number, text: string): Promise<string> {
  const socket = connect({ port, host: "127.0.0.1" });
  socket.write(text);
  return (await buffer(socket)).toString();
}

/** Answers with what it got. */
function echo(): Server {
  return createServer(async (request, response) => {
    const body = await buffer(request);
    response.writeHead(201, { "x-path": request.url ?? "" });
    response.write(body); // without a length: chunked
    response.end();
  });
}

describe("a connection of HTTP/1.1", () => {
  test("is exchanges, with bodies out of their chunks", async () => {
    const { recorder } = recording();
    const port = await intercepted(await listen(echo()), recorder);
    const sending = httpRequest({ port, host: "127.0.0.1", method: "POST", path: "/a?b=c", agent: false });
    sending.write("first, ");
    sending.end("second");
    const [response] = (await once(sending, "response")) as [NodeJS.ReadableStream];
    expect((await buffer(response)).toString()).toBe("first, second");
    const [exchange] = await settled(recorder, 1);
    expect(exchange?.line).toEqual({
      method: "POST",
      target: "/a?b=c",
      host: `127.0.0.1:${port}`,
      version: "HTTP/1.1",
    });
    expect(exchange?.status).toBe(201);
    expect(exchange?.requestBody.read().toString()).toBe("first, second");
    expect(exchange?.answerBody.read().toString()).toBe("first, second");
    expect(exchange?.answerFields).toContainEqual({ name: "x-path", value: "/a?b=c" });
    expect(exchange?.state).toBe("done");
  });

  test("with requests that are sent ahead is told apart by their order", async () => {
    const { recorder } = recording();
    const port = await intercepted(await listen(echo()), recorder);
    const head = "HTTP/1.1\r\nhost: x\r\n";
    await raw(
      port,
      `GET /1 ${head}\r\nPOST /2 ${head}content-length: 2\r\n\r\nhiGET /3 ${head}connection: close\r\n\r\n`,
    );
    const exchanges = await settled(recorder, 3);
    expect(exchanges.map(({ line, status }) => `${line.target} ${status}`)).toEqual(["/1 201", "/2 201", "/3 201"]);
    expect(exchanges[1]?.answerBody.read().toString()).toBe("hi");
  });

  test("is the same however its bytes are cut", async () => {
    const { recorder } = recording();
    const answer =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nt: 1\r\n\r\n";
    const port = await intercepted(
      await listen(
        createTcpServer((socket) => {
          socket.once("data", async () => {
            for (const byte of answer) {
              socket.write(byte);
              await turn();
            }
            socket.end();
          });
        }),
      ),
      recorder,
    );
    const text = await raw(port, "GET /cut HTTP/1.1\r\nhost: x\r\n\r\n");
    expect(text).toBe(answer);
    const [exchange] = await settled(recorder, 1);
    expect(exchange?.answerBody.read().toString()).toBe("abc");
    expect(exchange?.status).toBe(200);
  });

  test("that breaks before the answer is whole says so", async () => {
    const { recorder } = recording();
    const broken = createTcpServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"));
    });
    const port = await intercepted(await listen(broken), recorder);
    await raw(port, "GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    const [exchange] = await settled(recorder, 1);
    expect(exchange?.state).not.toBe("done");
    expect(exchange?.answerBody.read().toString()).toBe("half");
  });

  test("an answer that lasts until the end is whole then; an upgrade ends the reading", async () => {
    const { recorder } = recording();
    const server = createTcpServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (bytes: Buffer) => {
        if (bytes.includes("Upgrade")) socket.end("HTTP/1.1 101 Switching Protocols\r\n\r\nwhatever HTTP/1.1 is not");
        else socket.end("HTTP/1.0 200 OK\r\n\r\nuntil the end");
      });
    });
    const port = await intercepted(await listen(server), recorder);
    await raw(port, "GET /end HTTP/1.0\r\n\r\n");
    await raw(port, "GET /ws HTTP/1.1\r\nhost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    const [until, upgrade] = await settled(recorder, 2);
    expect([until?.state, until?.answerBody.read().toString()]).toEqual(["done", "until the end"]);
    expect([upgrade?.status, upgrade?.state, upgrade?.answerBody.bytes]).toEqual([101, "done", 0]);
  });
});

describe("a connection of HTTP/2", () => {
  test("is an exchange for each stream, with trailers", async () => {
    const { recorder } = recording();
    const server = createHttp2Server({ settings: { headerTableSize: 65_536 } });
    server.on("stream", (stream: ServerHttp2Stream, headers) => {
      stream.respond({ ":status": 200, "x-of": headers[":path"] }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "5" }));
      stream.pipe(stream);
    });
    const port = await intercepted(await listen(server as unknown as Listening), recorder);
    const client = connectHttp2(`http://127.0.0.1:${port}`);
    const large = Buffer.alloc(40_000, "x");
    await Promise.all(
      ["/1", "/2", "/3"].map(async (path) => {
        const stream = client.request({ ":method": "POST", ":path": path, "x-long": path.repeat(3000) });
        stream.end(large);
        expect((await buffer(stream)).length).toBe(large.length);
      }),
    );
    client.close();
    const exchanges = await settled(recorder, 3);
    expect(exchanges.map(({ line }) => `${line.version} ${line.method} ${line.target}`)).toEqual(
      [1, 2, 3].map((id) => `HTTP/2 POST /${id}`),
    );
    for (const exchange of exchanges) {
      expect(exchange.state).toBe("done");
      expect(exchange.requestBody.bytes).toBe(large.length);
      expect(exchange.answerBody.bytes).toBe(large.length);
      expect(exchange.answerTrailers).toEqual([{ name: "grpc-status", value: "5" }]);
      expect(exchange.answerFields).toContainEqual({ name: "x-of", value: exchange.line.target });
    }
  });

  test("a stream that is reset is cut", async () => {
    const { recorder } = recording();
    const server = createHttp2Server();
    server.on("stream", (stream) => {
      stream.on("error", () => undefined);
      stream.close(8);
    });
    const port = await intercepted(await listen(server as unknown as Listening), recorder);
    const client = connectHttp2(`http://127.0.0.1:${port}`);
    const stream = client.request({ ":path": "/" });
    stream.on("error", () => undefined);
    await once(stream, "close");
    client.close();
    const [exchange] = await settled(recorder, 1);
    expect(exchange?.state).toBe("cut");
  });
});

test("a promise of HTTP/2 ends the reading: its fields change how all others are read", () => {
  const read: string[] = [];
  const events = { headers: () => void read.push("headers"), data: () => undefined };
  const reader = new FrameReader({ ...events, reset: () => undefined, tableSize: () => undefined }, 0);
  const frame = (type: number, payload: number[]): Buffer =>
    Buffer.from([0, 0, payload.length, type, 4, 0, 0, 0, 1, ...payload]);
  reader.read(frame(1, [0x88])); // :status 200
  expect([read, reader.isOver]).toEqual([["headers"], false]);
  reader.read(Buffer.concat([frame(5, [0, 0, 0, 2, 0x40, 1, 97, 1, 98]), frame(1, [0xbe])]));
  expect([read, reader.isOver]).toEqual([["headers"], true]);
});

test("a frame of HTTP/2 that is too long to be held ends the reading", () => {
  const ignore = (): void => undefined;
  const reader = new FrameReader({ headers: ignore, data: ignore, reset: ignore, tableSize: ignore }, 0);
  reader.read(Buffer.from([0x10, 0, 0, 0, 0, 0, 0, 0, 1]));
  expect(reader.isOver).toBe(false);
  const other = new FrameReader({ headers: ignore, data: ignore, reset: ignore, tableSize: ignore }, 0);
  other.read(Buffer.from([0x10, 0, 1, 0, 0, 0, 0, 0, 1]));
  expect(other.isOver).toBe(true);
});

describe("what is kept", () => {
  test("is bounded in number, bytes and length of a body", async () => {
    const { recorder } = recording({ exchanges: 3, bodyBytes: 10, bytes: 1 << 20 });
    const port = await intercepted(await listen(echo()), recorder);
    for (const id of [1, 2, 3, 4, 5]) {
      await raw(port, `POST /${id} HTTP/1.1\r\nconnection: close\r\ncontent-length: 20\r\n\r\n${"y".repeat(20)}`);
    }
    await expect.poll(() => [...recorder.exchanges].map(({ line }) => line.target)).toEqual(["/3", "/4", "/5"]);
    const [oldest] = await settled(recorder, 3);
    expect(oldest?.requestBody).toMatchObject({ bytes: 20, heldBytes: 10, isCut: true });
    recorder.clear();
    expect([recorder.bytes, [...recorder.exchanges].length]).toEqual([0, 0]);
  });

  test("of a body that comes byte by byte costs about what the body does", () => {
    const body = new BodyCopy(1 << 16);
    for (let at = 0; at < 100_000; at += 1) body.add(Buffer.of(at));
    expect(body).toMatchObject({ bytes: 100_000, heldBytes: 1 << 16, memoryBytes: 1 << 16, isCut: true });
    const early = new BodyCopy(1 << 16);
    early.add(Buffer.from("first, "));
    const seen = early.read();
    early.add(Buffer.from("second".repeat(1000)));
    expect([seen.toString(), early.read().subarray(0, 13).toString()]).toEqual(["first, ", "first, second"]);
  });

  test("holds no body of what is forgotten, also when it is still under way", async () => {
    const { recorder } = recording({ exchanges: 1 });
    const silent = createTcpServer((socket) => void socket.resume());
    const port = await intercepted(await listen(silent), recorder);
    const sending = connect({ port, host: "127.0.0.1" });
    stack.defer(() => void sending.destroy());
    sending.write("POST /old HTTP/1.1\r\ncontent-length: 1000\r\n\r\nsome");
    await expect.poll(() => recorder.find(1)?.requestBody.heldBytes).toBe(4);
    const old = recorder.find(1);
    const next = connect({ port, host: "127.0.0.1" });
    stack.defer(() => void next.destroy());
    next.write("GET /new HTTP/1.1\r\n\r\n");
    await expect.poll(() => recorder.find(2)?.line.target).toBe("/new");
    sending.write("more");
    await expect.poll(() => old?.requestBody.bytes).toBe(8);
    expect(old?.requestBody.memoryBytes).toBe(0);
  });

  test("is nothing while nobody looks, and nothing of what is no HTTP", async () => {
    const { recorder } = recording();
    const port = await intercepted(await listen(createTcpServer((socket) => void socket.pipe(socket))), recorder);
    const socket = connect({ port, host: "127.0.0.1" });
    socket.end("SSH-2.0-me\r\n");
    expect((await buffer(socket)).toString()).toBe("SSH-2.0-me\r\n");
    recorder.stop();
    await raw(
      await intercepted(await listen(echo()), recorder),
      "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    expect([...recorder.exchanges]).toEqual([]);
  });
});

// Ingresses keep their connections: whoever opened the page after the first request saw none of those that followed.
describe("a connection that stood before anybody looked", () => {
  async function standing(): Promise<{ recorder: Recorder; ask: (text: string) => Promise<string> }> {
    const recorder = new Recorder(new FakeClock());
    const server = createTcpServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    });
    const socket = connect({ port: await intercepted(await listen(server), recorder), host: "127.0.0.1" });
    stack.defer(() => void socket.destroy());
    const ask = async (text: string): Promise<string> => {
      socket.write(text);
      return String((await once(socket, "data"))[0]);
    };
    expect(await ask("GET /before HTTP/1.1\r\nHost: a\r\n\r\n")).toContain("ok");
    return { recorder, ask };
  }

  test("is read from its next request on", async () => {
    const { recorder, ask } = await standing();
    recorder.start();
    await ask("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    await ask("GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
    const seen = await settled(recorder, 2);
    expect(seen.map(({ line, status, state }) => [line.target, status, state])).toEqual([
      ["/after", 200, "done"],
      ["/again", 200, "done"],
    ]);
  });

  test("is not taken for a request where it is a body that looks like one", async () => {
    const { recorder, ask } = await standing();
    recorder.start();
    await ask("the rest of something older");
    await ask("PUT what the server never asked for");
    await ask("GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    expect((await settled(recorder, 1)).map(({ line }) => line.target)).toEqual(["/after"]);
  });
});
