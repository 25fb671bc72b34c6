// The traps these tests keep shut, as the original and its rivals fell into them: a half-closed connection that ends
// whole, a slow reader that fills the process's memory, a bulk stream that starves a shell, a dead link that nobody
// notices, and a stray HTTP request that is answered.
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { heartbeatMs, helloTimeoutMs, linkSilenceMs, maxStreams, maxWindowBytes, openTimeoutMs } from "#wire/limits.ts";
import { resetCodes } from "#wire/open.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import { createSessionPair, testHello } from "./session-pair.fake.ts";
import type { SessionPair } from "./session-pair.fake.ts";
import { startWindowBytes } from "./receive-window.ts";
import { openSession } from "./session.ts";
import { createTransportPair } from "./transport.fake.ts";
import type { IncomingStream, TunnelStream } from "./tunnel.ts";

const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const udp: OpenRequest = { kind: "udp", target: { address: "10.0.0.1", port: 53 } };
const live = new AbortController().signal;

/** Both ends of a new stream. */
async function openStream(pair: SessionPair, request = tcp): Promise<[TunnelStream, TunnelStream]> {
  const accepted = new Promise<TunnelStream>((resolve) => {
    pair.accepter.onIncoming((incoming) => resolve(incoming.accept()));
  });
  return [await pair.opener.open(request, live), await accepted];
}

/** To the end of the reading half; `for await` would destroy the writing half with it. */
async function readAll(stream: TunnelStream): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks).toString();
}

function closed(stream: TunnelStream): Promise<void> {
  return new Promise((resolve) => (stream.closed ? resolve() : stream.once("close", () => resolve())));
}

async function errorOf(stream: TunnelStream): Promise<AppError> {
  const [error] = (await once(stream, "error")) as [AppError];
  return error;
}

/** Lets everything that is on its way arrive. */
async function settle(turns = 30): Promise<void> {
  for (let count = 0; count < turns; count += 1) await turn();
}

describe("a stream", () => {
  test("half-closes when its opener ends first", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    a.end("question");
    expect(await readAll(b)).toBe("question");
    expect(b.writable).toBe(true);
    b.end("answer");
    expect(await readAll(a)).toBe("answer");
    await Promise.all([closed(a), closed(b)]);
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("half-closes when its accepter ends first", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    b.end("greeting");
    expect(await readAll(a)).toBe("greeting");
    a.end("reply");
    expect(await readAll(b)).toBe("reply");
    await Promise.all([closed(a), closed(b)]);
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("half-closes when both end at once, and without a byte", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    a.end();
    b.end();
    expect(await Promise.all([readAll(a), readAll(b)])).toEqual(["", ""]);
    await Promise.all([closed(a), closed(b)]);
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("carries many windows' worth of bytes unchanged", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const sent = "0123456789abcdef".repeat(400_000);
    a.end(sent);
    const got = await readAll(b);
    expect(got === sent).toBe(true);
  });

  test("has ended when its owner says so, and the far end hears of it as soon as something can be sent", async () => {
    await using pair = await createSessionPair(undefined, { highWaterMark: 1024 });
    const accepted: TunnelStream[] = [];
    pair.accepter.onIncoming((incoming) => accepted.push(incoming.accept()));
    const [a, filler] = [await pair.opener.open(tcp, live), await pair.opener.open(tcp, live)];
    const [b, drain] = accepted as [TunnelStream, TunnelStream];
    const errors: Error[] = [];
    for (const stream of [a, b]) stream.on("error", (error) => errors.push(error));
    b.end();
    await readAll(a);
    pair.transport.stall();
    filler.end(Buffer.alloc(10_000)); // nothing behind it leaves
    await settle();
    a.end();
    await closed(a);
    const read = Promise.all([readAll(b), readAll(drain)]);
    await settle();
    expect(b.readableEnded).toBe(false);
    pair.transport.go();
    await read;
    drain.end();
    await Promise.all([closed(b), readAll(filler)]);
    expect(errors).toEqual([]);
    await settle();
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  // An agent whose laptop's process ended while its transport took nothing ended as a whole: Node's wrapper around a Duplex
  // asserts that nothing is written while it waits for an end to be sent.
  test("under HTTP/2 takes what is said after the far end has ended", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const session = connectHttp2("http://localhost", { createConnection: () => a });
    a.once("end", () => session.close());
    b.resume();
    await settle();
    b.end();
    await once(session, "close");
    await closed(b);
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  // The high-water mark of 0 is rare among streams: every way to read must still work.
  test.each<[string, (stream: TunnelStream) => Promise<number>]>([
    [
      "iteration",
      async (stream) => {
        let bytes = 0;
        for await (const chunk of stream) bytes += (chunk as Buffer).length;
        return bytes;
      },
    ],
    [
      "'readable' and read()",
      async (stream) => {
        let bytes = 0;
        stream.on("readable", () => {
          for (let chunk = stream.read() as Buffer | null; chunk !== null; chunk = stream.read() as Buffer | null) {
            bytes += chunk.length;
          }
        });
        await once(stream, "end");
        return bytes;
      },
    ],
    [
      "a pipe into a slow writer",
      async (stream) => {
        let bytes = 0;
        const slow = new Writable({
          highWaterMark: 1024,
          write: (chunk: Buffer, _encoding, done) => {
            bytes += chunk.length;
            setImmediate(done);
          },
        });
        await pipeline(stream, slow);
        return bytes;
      },
    ],
  ])("gives all its bytes to %s", async (_name, read) => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    b.end();
    a.resume();
    const reading = read(b);
    for (let part = 0; part < 300; part += 1) {
      if (!a.write(Buffer.alloc(1 + part * 37))) await once(a, "drain");
      if (part % 50 === 0) await settle(3);
    }
    a.end();
    expect(await reading).toBe(300 + 37 * ((299 * 300) / 2));
  });

  test("keeps what was sent before the end for a reader that comes late", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    a.end("early");
    b.end();
    await settle();
    a.resume();
    await closed(a);
    pair.opener.destroy();
    await pair.accepter.closed;
    expect(await readAll(b)).toBe("early");
  });

  test("holds at most a window for a reader that does not read, and brakes its writer", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    let taken = 0;
    const block = Buffer.alloc(16 * 1024);
    while (taken < 100) {
      taken += 1;
      if (!a.write(block)) {
        const drained = await Promise.race([once(a, "drain").then(() => true), settle(60).then(() => false)]);
        if (!drained) break;
      }
    }
    const received = pair.transport.accepter.receivedBytes;
    expect(received).toBeGreaterThanOrEqual(startWindowBytes);
    expect(received).toBeLessThan(startWindowBytes + 8 * 1024);
    expect(a.writableNeedDrain).toBe(true);
    const rest = readAll(b);
    a.end();
    expect((await rest).length).toBe(taken * block.length);
  });

  test("tells the far end why it was reset, and frees both ends", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    a.write("half a requ");
    const failed = errorOf(b);
    a.destroy(new AppError("peer_reset", "the connection behind was reset"));
    expect(await failed).toMatchObject({ code: "peer_reset", message: "the connection behind was reset" });
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("reads as cancelled when it is destroyed without a reason, and as peer_reset for ECONNRESET", async () => {
    await using pair = await createSessionPair();
    const ends: TunnelStream[] = [];
    pair.accepter.onIncoming((incoming) => ends.push(incoming.accept()));
    const a = await pair.opener.open(tcp, live);
    const b = await pair.opener.open(tcp, live);
    a.destroy();
    b.destroy(Object.assign(new Error("read ECONNRESET at 10.1.2.3"), { code: "ECONNRESET" }));
    const [first, second] = await Promise.all(ends.map(errorOf));
    expect(first?.code).toBe("cancelled");
    expect(second?.code).toBe("peer_reset");
    expect(second?.message).not.toContain("10.1.2.3");
  });

  test("gives every writer's callback an answer when it is reset", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const written = new Promise((resolve) => a.write(Buffer.alloc(2 * maxWindowBytes), resolve));
    await settle();
    b.destroy(new AppError("timeout", "enough"));
    expect(await written).toMatchObject({ code: "timeout" });
  });

  test("starves no other: an echo passes while a bulk stream fills the link", async () => {
    await using pair = await createSessionPair();
    const bulk: TunnelStream[] = [];
    pair.accepter.onIncoming((incoming) => {
      const stream = incoming.accept();
      if (incoming.request.kind === "tcp") stream.pipe(stream);
      else bulk.push(stream);
    });
    const heavy = await pair.opener.open({ kind: "rpc", api: "manager" }, live);
    const light = await pair.opener.open(tcp, live);
    bulk[0]?.resume();
    let sent = 0;
    const pump = (): void => {
      while (sent < 64 * 1024 * 1024 && heavy.write(Buffer.alloc(64 * 1024))) sent += 64 * 1024;
      sent += 64 * 1024;
    };
    heavy.on("drain", pump);
    pump();
    for (let round = 0; round < 50; round += 1) {
      const before = pair.transport.accepter.receivedBytes;
      light.write("ping");
      await once(light, "data");
      // What was on the way already, and a bounded number of turns.
      expect(pair.transport.accepter.receivedBytes - before).toBeLessThan(maxWindowBytes + 512 * 1024);
    }
    expect(sent).toBeGreaterThan(1024 * 1024);
    heavy.destroy();
  });

  test("carries datagrams both ways, whole and apart", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair, udp);
    const got: string[] = [];
    b.onDatagram((datagram) => {
      got.push(Buffer.from(datagram).toString());
      b.sendDatagram(Buffer.from(`re: ${got.at(-1)}`));
    });
    const back: string[] = [];
    a.onDatagram((datagram) => back.push(Buffer.from(datagram).toString()));
    expect(["one", "", "three"].map((text) => a.sendDatagram(Buffer.from(text)))).toEqual([true, true, true]);
    await settle();
    expect(got).toEqual(["one", "", "three"]);
    expect(back).toEqual(["re: one", "re: ", "re: three"]);
    expect(a.sendDatagram(Buffer.alloc(65_508))).toBe(false);
    a.end();
    b.end();
    await Promise.all([closed(a), closed(b)]);
    expect(a.sendDatagram(Buffer.from("late"))).toBe(false);
  });

  // Each answer of a socket is a callback of its own. With a write for each, the manager had time for nothing else at
  // 10,000 a second, and a quarter of them was lost in the kernel's buffer.
  test("leaves with what else one turn of the event loop brings, in one write", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair, udp);
    const got: string[] = [];
    b.onDatagram((datagram) => got.push(Buffer.from(datagram).toString()));
    await settle();
    let writes = 0;
    const { opener } = pair.transport;
    const write = opener._write.bind(opener);
    opener._write = (chunk: Buffer, encoding, done): void => {
      writes += 1;
      write(chunk, encoding, done);
    };
    for (const text of ["one", "two", "three"]) setImmediate(() => a.sendDatagram(Buffer.from(text)));
    await settle();
    expect(got).toEqual(["one", "two", "three"]);
    expect(writes).toBe(1);
  });

  test("drops the oldest datagrams when the link stands still, and counts them", async () => {
    await using pair = await createSessionPair(undefined, { highWaterMark: 1024 });
    const [a, b] = await openStream(pair, udp);
    const got: number[] = [];
    b.onDatagram((datagram) => got.push(Buffer.from(datagram).readUInt32BE()));
    pair.transport.stall();
    const datagram = Buffer.alloc(60_000);
    for (let number = 0; number < 100; number += 1) {
      datagram.writeUInt32BE(number);
      a.sendDatagram(datagram);
      await turn();
    }
    pair.transport.go();
    await settle(100);
    expect(got.at(-1)).toBe(99);
    expect(got.length).toBeLessThan(30);
    expect(pair.opener.droppedDatagrams).toBe(100 - got.length);
  });
});

describe("opening", () => {
  test.each<ResetReason>(["refused", "unreachable", "timeout", "denied", "not_found", "peer_reset"])(
    "rejects with the far end's %s",
    async (reason) => {
      await using pair = await createSessionPair();
      pair.accepter.onIncoming((incoming) => incoming.reject(reason, "no"));
      await expect(pair.opener.open(tcp, live)).rejects.toMatchObject({ code: reason, message: "no" });
    },
  );

  test("that is aborted tells the accepter, whose answer then does no harm", async () => {
    await using pair = await createSessionPair();
    const offered = new Promise<IncomingStream>((resolve) => pair.accepter.onIncoming(resolve));
    const controller = new AbortController();
    const opening = pair.opener.open(tcp, controller.signal);
    const incoming = await offered;
    controller.abort(new AppError("cancelled", "the caller went away"));
    await expect(opening).rejects.toThrow("the caller went away");
    if (!incoming.signal.aborted) await once(incoming.signal, "abort");
    const stream = incoming.accept();
    expect(stream.destroyed).toBe(true);
    expect(pair.accepter.streamCount).toBe(0);
    expect(() => incoming.reject("refused", "twice")).toThrow("answered once");
  });

  test("that is aborted while the answer is on its way leaves no stream behind", async () => {
    await using pair = await createSessionPair();
    const { promise: accepted, resolve: accept } = Promise.withResolvers<TunnelStream>();
    const controller = new AbortController();
    pair.accepter.onIncoming((incoming) => {
      accept(incoming.accept());
      controller.abort(new AppError("cancelled", "too late"));
    });
    await expect(pair.opener.open(tcp, controller.signal)).rejects.toThrow("too late");
    expect((await errorOf(await accepted)).code).toBe("cancelled");
    await settle();
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("gives up by itself when the far end never answers", async () => {
    const clock = new FakeClock();
    await using pair = await createSessionPair(clock);
    pair.accepter.onIncoming(() => undefined);
    const opening = pair.opener.open(tcp, live).catch((error: unknown) => error);
    await clock.advance(openTimeoutMs);
    expect(await opening).toMatchObject({ code: "timeout" });
  });

  test("waits for a handler that is set later", async () => {
    await using pair = await createSessionPair();
    const opening = pair.opener.open(tcp, live);
    await settle();
    pair.accepter.onIncoming((incoming) => void incoming.accept());
    expect((await opening).id).toBe(1);
  });

  test("works from both ends, with odd and even numbers", async () => {
    await using pair = await createSessionPair();
    for (const end of [pair.opener, pair.accepter]) end.onIncoming((incoming) => void incoming.accept());
    const streams = await Promise.all(
      [pair.opener, pair.accepter, pair.opener, pair.accepter].map(async (end) => end.open(tcp, live)),
    );
    expect(streams.map((stream) => stream.id)).toEqual([1, 2, 3, 4]);
  });

  test("is refused as busy beyond the bound, on either side of it", { timeout: 20_000 }, async () => {
    await using pair = await createSessionPair();
    pair.accepter.onIncoming((incoming) => void incoming.accept());
    const opened = await Promise.all(
      // A signal each: listeners on one cost time in the square of their number.
      Array.from({ length: maxStreams }, async () => pair.opener.open(udp, new AbortController().signal)),
    );
    await expect(pair.opener.open(tcp, live)).rejects.toMatchObject({ code: "busy" });
    opened[0]?.destroy();
    expect((await pair.opener.open(tcp, live)).id).toBe(2 * maxStreams + 1);
  });

  test("2,000 streams at once carry their own bytes", { timeout: 20_000 }, async () => {
    await using pair = await createSessionPair();
    pair.accepter.onIncoming((incoming) => {
      const stream = incoming.accept();
      stream.pipe(stream);
    });
    const texts = await Promise.all(
      Array.from({ length: 2000 }, async (_, index) => {
        const stream = await pair.opener.open(tcp, live);
        stream.end(`stream ${index}`);
        return readAll(stream);
      }),
    );
    expect(texts).toEqual(Array.from({ length: 2000 }, (_, index) => `stream ${index}`));
    await settle();
    expect([pair.opener.streamCount, pair.accepter.streamCount]).toEqual([0, 0]);
  });

  test("costs its stream, not the session, when the handler throws", async () => {
    await using pair = await createSessionPair();
    pair.accepter.onIncoming((incoming) => {
      if (incoming.request.kind === "udp") throw new Error("bug");
      incoming.accept();
    });
    await expect(pair.opener.open(udp, live)).rejects.toMatchObject({ code: "internal" });
    expect((await pair.opener.open(tcp, live)).id).toBe(3);
  });
});

describe("the link", () => {
  test("is lost at once when the transport is cut, with every stream, opening and offer", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const opening = pair.opener.open(tcp, live).catch((error: unknown) => error);
    const offered = pair.accepter.open(udp, live).catch((error: unknown) => error);
    const failures = [errorOf(a), errorOf(b)];
    pair.transport.cut();
    for (const failure of failures) expect((await failure).code).toBe("link_lost");
    expect(await opening).toMatchObject({ code: "link_lost" });
    expect(await offered).toMatchObject({ code: "link_lost" });
    expect(await pair.opener.closed).toMatchObject({ code: "link_lost" });
    expect(await pair.accepter.closed).toMatchObject({ code: "link_lost" });
    await expect(pair.opener.open(tcp, live)).rejects.toMatchObject({ code: "link_lost" });
  });

  test("lives on heart-beats while nobody says anything", async () => {
    const clock = new FakeClock();
    await using pair = await createSessionPair(clock);
    const before = pair.transport.accepter.receivedBytes;
    for (let beat = 0; beat < 20; beat += 1) await clock.advance(heartbeatMs / 2);
    const beats = pair.transport.accepter.receivedBytes - before;
    expect(beats).toBeGreaterThan(0);
    expect(beats).toBeLessThanOrEqual(24 * 22);
    expect(pair.opener.roundTripMs).toBeDefined();
    expect(pair.accepter.roundTripMs).toBeDefined();
  });

  // Trap 37: connections to databases were cut when nobody had asked anything for a minute.
  test("keeps a stream that nobody uses for eight hours", { timeout: 20_000 }, async () => {
    const clock = new FakeClock();
    await using pair = await createSessionPair(clock);
    const [a, b] = await openStream(pair);
    for (let passedMs = 0; passedMs < 8 * 3_600_000; passedMs += heartbeatMs) {
      await clock.advance(heartbeatMs);
      await turn();
    }
    b.end("still there");
    expect(await readAll(a)).toBe("still there");
  });

  test("is lost after the silence of a black hole, not before", async () => {
    const clock = new FakeClock();
    await using pair = await createSessionPair(clock);
    const [a] = await openStream(pair);
    await settle();
    const failed = errorOf(a);
    pair.transport.stall();
    let over = false;
    void pair.opener.closed.then(() => (over = true));
    await clock.advance(linkSilenceMs - 1);
    await settle();
    expect(over).toBe(false);
    await clock.advance(1);
    expect(await pair.opener.closed).toMatchObject({ code: "link_lost" });
    expect(await failed).toMatchObject({ code: "link_lost" });
  });

  // A debugger's break or a starved machine: time has passed, but what the far end said lies unread in the socket.
  test("is not lost because this process stood still", async () => {
    class StandingClock extends FakeClock {
      offsetMs = 0;
      override now(): number {
        return super.now() + this.offsetMs;
      }
    }
    const clock = new StandingClock();
    await using pair = await createSessionPair(clock);
    let over = false;
    void pair.opener.closed.then(() => (over = true));
    clock.offsetMs += 60_000;
    for (let step = 0; step < 10; step += 1) await clock.advance(1000);
    expect(over).toBe(false);
  });

  test("measures its round trip", async () => {
    const clock = new FakeClock();
    const opening = createSessionPair(clock, { latencyMs: 20 });
    for (let step = 0; step < 10; step += 1) await clock.advance(20);
    await using pair = await opening;
    await clock.advance(100);
    expect(pair.opener.roundTripMs).toBe(40);
    await clock.advance(1000);
    expect(pair.opener.silentMs).toBeGreaterThan(1000);
  });

  test("closes in order: drains, refuses new streams, and both ends know", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const closing = pair.opener.close(live);
    await settle();
    await expect(pair.opener.open(tcp, live)).rejects.toMatchObject({ code: "link_lost" });
    await expect(pair.accepter.open(tcp, live)).rejects.toMatchObject({ code: "link_lost" });
    a.end("last words");
    b.end();
    a.resume();
    expect(await readAll(b)).toBe("last words");
    await closing;
    expect(await pair.opener.closed).toBeUndefined();
    expect(await pair.accepter.closed).toBeUndefined();
  });

  test("refuses a stream that was asked for while it was closing", async () => {
    await using pair = await createSessionPair(undefined);
    const [a] = await openStream(pair);
    void pair.opener.close(live);
    await expect(pair.accepter.open(tcp, live)).rejects.toMatchObject({ code: "busy" });
    a.destroy();
    expect(await pair.accepter.closed).toBeUndefined();
  });

  test("cuts what has not drained when the time is over", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const failures = [errorOf(a), errorOf(b)];
    const controller = new AbortController();
    const closing = pair.opener.close(controller.signal);
    await settle();
    controller.abort();
    await closing;
    for (const failure of failures) expect((await failure).code).toBe("link_lost");
    expect(await pair.opener.closed).toBeUndefined();
    expect(await pair.accepter.closed).toBeUndefined();
  });

  test("tells the far end why it was destroyed", async () => {
    await using pair = await createSessionPair();
    pair.opener.destroy(new AppError("denied", "the session was taken over"));
    expect(await pair.opener.closed).toMatchObject({ code: "denied" });
    expect(await pair.accepter.closed).toMatchObject({ code: "denied", message: "the session was taken over" });
  });

  test("leaves no timer behind", async () => {
    const clock = new FakeClock();
    const pair = await createSessionPair(clock);
    const [a, b] = await openStream(pair);
    a.destroy();
    await errorOf(b);
    await pair[Symbol.asyncDispose]();
    expect(clock.pending).toBe(0);
  });

  test("sends what one turn of the event loop wrote in one piece", async () => {
    await using pair = await createSessionPair();
    pair.accepter.onIncoming((incoming) => void incoming.accept().resume());
    const streams = await Promise.all(Array.from({ length: 50 }, async () => pair.opener.open(tcp, live)));
    await settle();
    const before = pair.transport.accepter.receivedChunks;
    for (const stream of streams) for (let part = 0; part < 10; part += 1) stream.write("part");
    await settle();
    expect(pair.transport.accepter.receivedChunks - before).toBeLessThanOrEqual(2);
  });
});

describe("openSession()", () => {
  const common = { clock: new FakeClock(), log: silentLogger, signal: live };

  test("closes on an HTTP request without an answer", async () => {
    const transport = createTransportPair();
    const opening = openSession({
      ...common,
      transport: transport.accepter,
      role: "accepter",
      hello: testHello("manager"),
    });
    transport.opener.write("GET / HTTP/1.1\r\n\r\n");
    await expect(opening).rejects.toMatchObject({ code: "protocol" });
    expect(transport.opener.receivedBytes).toBe(0);
    expect(transport.accepter.destroyed).toBe(true);
  });

  test("gives up when no greeting comes, with its signal, and when the transport is gone", async () => {
    const clock = new FakeClock();
    const options = { ...common, clock, role: "opener", hello: testHello("laptop") } as const;
    const silent = openSession({ ...options, transport: createTransportPair().opener });
    const failed = silent.catch((error: unknown) => error);
    await clock.advance(helloTimeoutMs);
    expect(await failed).toMatchObject({ code: "timeout" });

    const controller = new AbortController();
    const waiting = openSession({ ...options, transport: createTransportPair().opener, signal: controller.signal });
    controller.abort(new AppError("cancelled", "enough"));
    await expect(waiting).rejects.toThrow("enough");

    const gone = createTransportPair();
    gone.cut();
    await expect(openSession({ ...options, transport: gone.opener })).rejects.toMatchObject({ code: "link_lost" });
    expect(clock.pending).toBe(0);
  });

  test.each([
    ["newer", { min: 8, max: 9 }],
    ["older", { min: 0, max: 0 }],
  ])("refuses a laptop that is %s, and both ends name the versions", async (_name, protocol) => {
    const transport = createTransportPair();
    const both = await Promise.allSettled([
      openSession({
        ...common,
        transport: transport.opener,
        role: "opener",
        hello: { ...testHello("laptop"), protocol, software: "9.9.9" },
      }),
      openSession({ ...common, transport: transport.accepter, role: "accepter", hello: testHello("manager") }),
    ]);
    for (const outcome of both) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "version_mismatch" } });
      expect(String((outcome as PromiseRejectedResult).reason)).toMatch(/9\.9\.9.*0\.1\.0|0\.1\.0.*9\.9\.9/);
    }
  });

  test("refuses an end of another role than the expected one", async () => {
    const transport = createTransportPair();
    const both = await Promise.allSettled([
      openSession({ ...common, transport: transport.opener, role: "opener", hello: testHello("laptop") }),
      openSession({
        ...common,
        transport: transport.accepter,
        role: "accepter",
        hello: testHello("manager"),
        expectRole: "agent",
      }),
    ]);
    for (const outcome of both) expect(outcome).toMatchObject({ status: "rejected", reason: { code: "denied" } });
    expect(resetCodes.denied).toBe(5);
  });
});
