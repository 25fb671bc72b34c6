// Callers of HTTP/2 that mean harm, or are broken: their own connection ends, everybody else is served, memory is bounded.
// What is Node's own doing is proved here, because the agent relies on it (CVE-2023-44487, CVE-2024-27316, CVE-2019-9511
// and the like).
import { connect } from "node:net";
import type { Socket } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";
import { KeptHttp2Caller, http2Server } from "./http2-ends.ts";
import { TestLaptop, randomFrom, tcpServer, testAgent, testManager } from "./harness.ts";

const inputs = randomInputs();
const seed = Number(process.env["FUZZ_SEED"] ?? 1);
const parallel = 32;
const boundBytes = 50 * 1024 * 1024;

const stack: AsyncDisposableStack[] = [];
afterEach(async () => {
  for (const disposables of stack.splice(0)) await disposables.disposeAsync();
});

function ofTest(): AsyncDisposableStack {
  const disposables = new AsyncDisposableStack();
  stack.push(disposables);
  return disposables;
}

async function pod(disposables = ofTest()) {
  const manager = disposables.use(await testManager());
  const app = disposables.use(await http2Server("app"));
  const process = disposables.use(await http2Server("laptop"));
  const laptop = disposables.use(await TestLaptop.connect(manager));
  const agent = disposables.use(await testAgent({ containerPort: app.port }));
  await laptop.introduce(manager, agent);
  laptop.serveWith(process.port);
  const filter = 'request.headers["x-user"] == "ann" || request.body.contains("ann")';
  await laptop.intercept("hello", app.port, "tcp", { filter });
  const good = disposables.use(new KeptHttp2Caller(agent.agentPorts[0]!));
  const others = async (): Promise<void> => {
    expect((await good.ask()).body).toMatch(/^app /);
    expect((await good.ask({ headers: { "x-user": "ann" } })).body).toMatch(/^laptop /);
  };
  await others();
  return { port: agent.agentPorts[0]!, others, app };
}

const types = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, window: 8, continuation: 9 } as const;
const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

function frame(type: number, flags: number, streamId: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}
const hello = Buffer.concat([preface, frame(types.settings, 0, 0)]);
/** GET http://a/ by the static table, and a literal authority. */
const getRoot = Buffer.from([0x82, 0x86, 0x84, 0x41, 0x01, 0x61]);

/** Sends `more` again and again until the agent ends the connection; resolves with how many bytes that took. */
function flood(port: number, first: Buffer, more: (round: number) => Buffer): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true });
  let bytes = 0;
  let round = 0;
  const pour = (): void => {
    for (let count = 0; count < 50 && !socket.destroyed; count += 1) {
      const next = more(round++);
      bytes += next.length;
      if (!socket.write(next)) break;
    }
    if (!socket.destroyed && !socket.writableNeedDrain) setImmediate(pour);
  };
  socket.on("drain", pour);
  socket.on("error", () => undefined);
  socket.on("close", () => resolve(bytes));
  socket.on("data", () => undefined);
  socket.on("end", () => socket.end());
  socket.write(first);
  pour();
  return promise;
}

describe("the connection ends of a caller that", () => {
  const disposables = new AsyncDisposableStack();
  let { port, others }: Partial<Awaited<ReturnType<typeof pod>>> = {};
  let before = 0;
  beforeAll(async () => {
    ({ port, others } = await pod(disposables));
    before = heldBytes();
  });
  afterAll(() => disposables.disposeAsync());

  const streamOf = (round: number): number => 2 * round + 1;
  const eight = Buffer.alloc(8);
  const setting = Buffer.from([0, 4, 0, 1, 0, 0]);
  test.each([
    [
      "opens streams and resets them (CVE-2023-44487)",
      (round: number) =>
        Buffer.concat([
          frame(types.headers, 5, streamOf(round), getRoot),
          frame(types.reset, 0, streamOf(round), Buffer.from([0, 0, 0, 8])),
        ]),
    ],
    [
      "never ends a header block (CVE-2024-27316)",
      (round: number) =>
        round === 0 ? frame(types.headers, 1, 1, getRoot) : frame(types.continuation, 0, 1, Buffer.alloc(0)),
    ],
    [
      "never ends a header block, and fills it",
      (round: number) =>
        round === 0
          ? frame(types.headers, 1, 1, getRoot)
          : frame(
              types.continuation,
              0,
              1,
              Buffer.concat([Buffer.from([0, 1, 0x61, 0x7f, 0x80, 0x7f]), Buffer.alloc(16000, 97)]),
            ),
    ],
    ["asks for signs of life without reading the answers (CVE-2019-9512)", () => frame(types.ping, 0, 0, eight)],
    ["changes its settings without reading the answers (CVE-2019-9515)", () => frame(types.settings, 0, 0, setting)],
    ["opens more streams than it may", (round: number) => frame(types.headers, 4, streamOf(round), getRoot)],
    ["breaks the rules of header compression", () => frame(types.headers, 5, 1, Buffer.from([0xff, 0xff, 0xff, 0xff]))],
    ["sends a frame that is too large", () => frame(types.data, 0, 1, Buffer.alloc(20_000))],
    ["opens a window beyond what there is", () => frame(types.window, 0, 0, Buffer.from([0x7f, 0xff, 0xff, 0xff]))],
  ])("%s", async (name, more) => {
    const unread = name.includes("without reading");
    const bytes = unread ? await floodUnread(port!, more(0)) : await flood(port!, hello, more);
    await others!();
    process.stdout.write(`${name}: ended after ${bytes} bytes\n`);
    expect(bytes).toBeLessThan(32 * 1024 * 1024);
    expect(heldBeyond(before, boundBytes)).toBeLessThan(boundBytes);
  });

  /** What a caller does not read is not piled up: the agent stops reading it, or ends the connection. */
  async function floodUnread(port: number, ping: Buffer): Promise<number> {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.on("error", () => undefined);
    socket.pause();
    socket.write(hello);
    const many = Buffer.concat(Array.from({ length: 1000 }, () => ping));
    let bytes = 0;
    for (; bytes < 32 * 1024 * 1024 && !socket.destroyed; bytes += many.length) {
      if (socket.write(many)) continue;
      const drained = new Promise((resolve) => socket.once("drain", resolve).once("close", resolve));
      const stuck = Symbol("stuck");
      const rest = new Promise((resolve) => void setTimeout(resolve, 500, stuck));
      if ((await Promise.race([drained, rest])) === stuck) break;
    }
    socket.destroy();
    return bytes;
  }
});

describe("header lists that Node takes in and refuses to send", () => {
  const literal = (name: string, value: string): Buffer =>
    Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);
  const settings = literal("http2-settings", "AA");
  function typesIn(bytes: Buffer): readonly (number | undefined)[] {
    const found: (number | undefined)[] = [];
    for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) found.push(bytes[at + 3]);
    return found;
  }
  /** What the caller hears of its stream. */
  async function hears(port: number, frames: Buffer): Promise<"reset" | "end"> {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.on("error", () => undefined);
    socket.write(Buffer.concat([hello, frames]));
    let got = Buffer.alloc(0);
    try {
      for await (const chunk of socket) {
        got = Buffer.concat([got, chunk as Buffer]);
        if (typesIn(got).includes(types.reset)) return "reset";
      }
    } catch {
      // the same
    }
    return "end";
  }

  test("reset their stream alone, whoever sent them, as headers or trailers", async () => {
    const { port, others } = await pod();
    expect(await hears(port, frame(types.headers, 5, 1, Buffer.concat([getRoot, settings])))).toBe("reset");
    const post = Buffer.from([0x83, 0x86, 0x84, 0x41, 0x01, 0x61]);
    const trailers = Buffer.concat([frame(types.headers, 4, 1, post), frame(types.headers, 5, 1, settings)]);
    expect(await hears(port, trailers)).toBe("reset");
    await others();
  });

  test.each([
    ["an interim answer", [frame(types.headers, 4, 1, Buffer.concat([literal(":status", "103"), settings]))]],
    ["an answer", [frame(types.headers, 5, 1, Buffer.concat([Buffer.from([0x88]), settings]))]],
    [
      "trailers",
      [frame(types.headers, 4, 1, Buffer.from([0x88])), frame(types.data, 0, 1), frame(types.headers, 5, 1, settings)],
    ],
  ])("reset their stream when they come as %s", async (_name, frames) => {
    const disposables = new AsyncDisposableStack();
    stack.push(disposables);
    const app = disposables.use(
      await tcpServer((socket) => {
        socket.write(frame(types.settings, 0, 0));
        let asked = Buffer.alloc(0);
        socket.on("data", (chunk: Buffer) => {
          asked = Buffer.concat([asked, chunk]);
          if (typesIn(asked.subarray(preface.length)).includes(types.headers)) socket.write(Buffer.concat(frames));
        });
      }),
    );
    const agent = disposables.use(await testAgent({ containerPort: app.port }));
    expect(await hears(agent.agentPorts[0]!, frame(types.headers, 5, 1, getRoot))).toBe("reset");
  });
});

describe("random frames", () => {
  const kinds = Object.values(types);
  function inputOf(random: (below: number) => number): Buffer {
    const pieces: Buffer[] = [random(20) === 0 ? preface : hello];
    for (let count = 1 + random(6); count > 0; count -= 1) {
      const kind = random(10) === 0 ? random(256) : kinds[random(kinds.length)]!;
      const streamId = random(8) === 0 ? random(0x7fffffff) : random(6);
      const payload =
        kind === types.headers && random(3) > 0
          ? getRoot
          : Buffer.from(Array.from({ length: [0, 4, 5, 6, 8, random(100)][random(6)]! }, () => random(256)));
      const bytes = frame(kind, random(3) === 0 ? random(256) : 4 + random(2), streamId, payload);
      if (random(10) === 0) bytes.writeUIntBE(random(30), 0, 3);
      if (random(10) === 0) bytes[random(bytes.length)] = random(256);
      pieces.push(bytes);
    }
    return Buffer.concat(pieces);
  }

  /** Sends one input and ends, resets, or waits for an answer first. */
  function send(port: number, input: Buffer, way: number): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
      socket.on("error", () => undefined);
      socket.on("close", () => resolve());
      socket.once("end", () => socket.end());
      socket.once("connect", () => {
        if (way === 0) socket.end(input);
        else socket.write(input);
      });
      socket.on("data", () => {
        if (way === 1) socket.resetAndDestroy();
        else socket.end();
      });
    });
  }

  test(`${inputs} times harm nobody`, async () => {
    const { port, others, app } = await pod();
    const random = randomFrom(seed);
    let left = inputs;
    const before = heldBytes();
    const one = async (): Promise<void> => {
      while (left > 0) {
        left -= 1;
        const input = inputOf(random);
        await send(port, input, random(3));
      }
    };
    await Promise.all(Array.from({ length: parallel }, one));
    await others();
    while (app.sessions.size > 1) await new Promise(setImmediate);
    const grownBytes = heldBeyond(before, boundBytes);
    process.stdout.write(
      `${inputs} inputs of HTTP/2 (seed ${seed}), at most ${Math.round(grownBytes / 1024 / 1024)} MiB more memory\n`,
    );
    expect(grownBytes).toBeLessThan(boundBytes);
  }, 300_000);
});
