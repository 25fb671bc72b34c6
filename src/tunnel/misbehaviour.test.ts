// A session against a far end that breaks the protocol, played by hand on the raw transport: what it breaks is what it
// loses, and nothing grows without bound.
import { once } from "node:events";
import { setImmediate as turn } from "node:timers/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { isAppError } from "#base/error.ts";
import { createLogger, silentLogger } from "#base/log.ts";
import { decodeReason, encodeOpen, encodeReason, encodeUint32 } from "#wire/frame-body.ts";
import { FrameDecoder, encodeFrame, frameTypes, isSequenced } from "#wire/frame.ts";
import type { Frame, FrameType } from "#wire/frame.ts";
import { HelloDecoder, encodeHello } from "#wire/hello-codec.ts";
import { initialWindowBytes } from "#wire/limits.ts";
import { startWindowBytes } from "./receive-window.ts";
import type { OpenRequest } from "#wire/open.ts";
import { testHello } from "./session-pair.fake.ts";
import { openSession } from "./session.ts";
import { createTransportPair } from "./transport.fake.ts";
import type { FakeTransport } from "./transport.fake.ts";
import type { TunnelSession, TunnelStream } from "./tunnel.ts";

const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const udp: OpenRequest = { kind: "udp", target: { address: "10.0.0.1", port: 53 } };
const nothing = new Uint8Array(0);
const live = new AbortController().signal;

/** The opener's end, by hand; the session under test is the accepter. */
class RawPeer {
  readonly transport: FakeTransport;
  readonly frames: Frame[] = [];
  readonly #hello = new HelloDecoder();
  readonly #decoder = new FrameDecoder();
  #greeted = false;
  #seq = 0;

  constructor(transport: FakeTransport) {
    this.transport = transport;
    transport.on("data", (chunk: Buffer) => this.#receive(chunk));
    transport.write(encodeHello(testHello("laptop")));
  }

  send(type: FrameType, streamId: number, payload: Uint8Array = nothing): void {
    this.transport.write(this.encode(type, streamId, payload));
  }
  encode(type: FrameType, streamId: number, payload: Uint8Array = nothing): Uint8Array {
    if (isSequenced(type)) this.#seq += 1;
    return encodeFrame({ type, streamId, seq: isSequenced(type) ? this.#seq : 0, payload });
  }
  /** What came, by type. */
  got(type: FrameType): readonly Frame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#greeted) {
      this.#decoder.push(chunk, (frame) => this.frames.push({ ...frame, payload: Uint8Array.from(frame.payload) }));
      return;
    }
    const decoded = this.#hello.push(chunk);
    if (decoded === undefined) return;
    this.#greeted = true;
    this.#receive(decoded.rest);
  }
}

interface Started {
  readonly peer: RawPeer;
  readonly session: TunnelSession;
  readonly accepted: TunnelStream[];
  /** The session's own end. */
  readonly transport: FakeTransport;
}

async function start(log = silentLogger): Promise<Started> {
  const transport = createTransportPair({ highWaterMark: 1024 });
  const peer = new RawPeer(transport.opener);
  const session = await openSession({
    transport: transport.accepter,
    role: "accepter",
    hello: testHello("manager"),
    clock: new FakeClock(),
    log,
    signal: live,
  });
  const accepted: TunnelStream[] = [];
  session.onIncoming((incoming) => accepted.push(incoming.accept()));
  return { peer, session, accepted, transport: transport.accepter };
}

async function settle(): Promise<void> {
  for (let count = 0; count < 30; count += 1) await turn();
}

describe("a far end that breaks the protocol", () => {
  test.each<[string, (peer: RawPeer) => void]>([
    ["an unknown frame type", (peer) => peer.transport.write(Buffer.alloc(16, 0xee))],
    [
      "a gap in the sequence",
      (peer) => {
        peer.encode(frameTypes.end, 1);
        peer.send(frameTypes.open, 1, encodeOpen(tcp));
      },
    ],
    ["a stream number that is not its own", (peer) => peer.send(frameTypes.open, 2, encodeOpen(tcp))],
    ["a stream number used before", (peer) => [3, 3].forEach((id) => peer.send(frameTypes.open, id, encodeOpen(tcp)))],
    ["data for a stream that never was", (peer) => peer.send(frameTypes.data, 9, new Uint8Array(1))],
    ["an answer to a question never asked", (peer) => peer.send(frameTypes.openOk, 2)],
    ["an answer about its own stream", (peer) => peer.send(frameTypes.reject, 1, encodeReason(2, ""))],
    ["an ACK of what was never sent", (peer) => peer.send(frameTypes.ack, 0, encodeUint32(1000))],
  ])("loses the link for %s, and is told", async (_name, misbehave) => {
    const { peer, session } = await start();
    misbehave(peer);
    expect(await session.closed).toMatchObject({ code: "protocol" });
    await settle();
    const goaway = peer.got(frameTypes.goaway).map((frame) => decodeReason(frame.payload));
    expect(goaway).toMatchObject([{ reason: "protocol" }]);
    expect(peer.transport.destroyed || peer.transport.readableEnded).toBe(true);
  });

  test.each<[string, (peer: RawPeer) => void]>([
    [
      "more than its window",
      (peer) => [1, 2].forEach(() => peer.send(frameTypes.data, 1, new Uint8Array(startWindowBytes / 2 + 1))),
    ],
    [
      "data after its end",
      (peer) => {
        peer.send(frameTypes.end, 1);
        peer.send(frameTypes.data, 1, new Uint8Array(1));
      },
    ],
    ["two ends", (peer) => [1, 2].forEach(() => peer.send(frameTypes.end, 1))],
    ["no credit", (peer) => peer.send(frameTypes.credit, 1, encodeUint32(0))],
    ["too much credit", (peer) => peer.send(frameTypes.credit, 1, encodeUint32(0xffff_ffff))],
  ])("loses the stream, not the link, for %s", async (_name, misbehave) => {
    const { peer, session, accepted } = await start();
    peer.send(frameTypes.open, 1, encodeOpen(tcp));
    await settle();
    const failed = once(accepted[0]!, "error");
    misbehave(peer);
    expect((await failed)[0]).toMatchObject({ code: "protocol" });
    await settle();
    expect(peer.got(frameTypes.reset).map((frame) => decodeReason(frame.payload).reason)).toEqual(["protocol"]);
    peer.send(frameTypes.data, 1, new Uint8Array(1)); // on its way when the reset went out: not an error
    peer.send(frameTypes.open, 3, encodeOpen(tcp));
    await settle();
    expect(session.streamCount).toBe(1);
    session.destroy();
  });

  // A far end that read nothing and sent on had each frame put into the log, for as long as END could not leave.
  test("loses a stream once when only END was still to be sent", async () => {
    const lines: string[] = [];
    const { peer, session, accepted, transport } = await start(createLogger("warn", (line) => void lines.push(line)));
    for (const id of [1, 3]) peer.send(frameTypes.open, id, encodeOpen(tcp));
    await settle();
    const [stream, filler] = accepted as [TunnelStream, TunnelStream];
    transport.stall(true);
    filler.write(Buffer.alloc(2048)); // nothing behind it leaves
    await settle();
    peer.send(frameTypes.end, 1);
    stream.resume().end();
    await once(stream, "close");
    expect(session.streamCount).toBe(2);
    for (let frame = 0; frame < 100; frame += 1) peer.send(frameTypes.data, 1, new Uint8Array(1));
    await settle();
    expect(lines).toHaveLength(1);
    transport.stall(false);
    await settle();
    expect(peer.got(frameTypes.reset).map((frame) => decodeReason(frame.payload).reason)).toEqual(["protocol"]);
    expect(peer.got(frameTypes.end)).toEqual([]);
    expect(session.streamCount).toBe(1);
    session.destroy();
  });

  test("is rejected for data before its stream was accepted", async () => {
    const transport = createTransportPair();
    const peer = new RawPeer(transport.opener);
    const session = await openSession({
      transport: transport.accepter,
      role: "accepter",
      hello: testHello("manager"),
      clock: new FakeClock(),
      log: silentLogger,
      signal: live,
    });
    const signals: AbortSignal[] = [];
    session.onIncoming((incoming) => signals.push(incoming.signal));
    peer.send(frameTypes.open, 1, encodeOpen(tcp));
    peer.send(frameTypes.data, 1, new Uint8Array(1));
    await settle();
    expect(signals[0]?.aborted).toBe(true);
    expect(peer.got(frameTypes.reject).map((frame) => decodeReason(frame.payload).reason)).toEqual(["protocol"]);
    session.destroy();
  });

  test("is refused, not dropped, for an OPEN nobody knows", async () => {
    const { peer, session } = await start();
    peer.send(frameTypes.open, 1, Buffer.from('{"kind":"icmp"}'));
    peer.send(frameTypes.open, 3, Buffer.from("not json"));
    await settle();
    const reasons = peer.got(frameTypes.reject).map((frame) => decodeReason(frame.payload).reason);
    expect(reasons).toEqual(["unsupported", "protocol"]);
    session.destroy();
  });

  test("is acknowledged while it sends, and is owed credit only for what was read", async () => {
    const { peer, session, accepted } = await start();
    peer.send(frameTypes.open, 1, encodeOpen(tcp));
    await settle();
    for (let part = 0; part < 16; part += 1) peer.send(frameTypes.data, 1, new Uint8Array(startWindowBytes / 16));
    for (let count = 0; count < 64; count += 1) peer.send(frameTypes.datagram, 1, new Uint8Array(1));
    await settle();
    expect(peer.got(frameTypes.ack).length).toBeGreaterThan(0);
    expect(peer.got(frameTypes.credit)).toHaveLength(1); // what its start gave
    accepted[0]?.resume();
    await settle();
    const credit = peer.got(frameTypes.credit).map((frame) => Buffer.from(frame.payload).readUInt32BE());
    expect(credit.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThanOrEqual(
      2 * startWindowBytes - initialWindowBytes,
    );
    session.destroy();
  });

  test("cannot make a slow reader hold much more memory than its bytes", async () => {
    const { peer, session, accepted } = await start();
    peer.send(frameTypes.open, 1, encodeOpen(tcp));
    await settle();
    const batch = Buffer.concat(Array.from({ length: 4096 }, () => peer.encode(frameTypes.data, 1, Uint8Array.of(7))));
    const before = process.memoryUsage();
    for (let round = 0; round < 16; round += 1) {
      peer.transport.write(batch.subarray(0, 0));
      peer.transport.write(
        Buffer.concat(
          round === 0 ? [batch] : Array.from({ length: 4096 }, () => peer.encode(frameTypes.data, 1, Uint8Array.of(7))),
        ),
      );
      await settle();
    }
    const after = process.memoryUsage();
    const grown = after.arrayBuffers - before.arrayBuffers;
    expect(grown).toBeLessThan(16 * 1024 * 1024);
    const got: number[] = [];
    accepted[0]?.on("data", (chunk: Buffer) => got.push(chunk.length));
    await settle();
    expect(got.reduce((sum, bytes) => sum + bytes, 0)).toBe(16 * 4096);
    expect(got.length).toBeLessThan(32);
    session.destroy();
  });

  test("loses the link when it causes answers and does not read them", async () => {
    const { peer, session } = await start();
    peer.transport.pause();
    const pings = Buffer.concat(Array.from({ length: 2000 }, () => peer.encode(frameTypes.ping, 0, new Uint8Array(8))));
    let over = false;
    void session.closed.then(() => (over = true));
    for (let round = 0; round < 2000 && !over; round += 1) {
      peer.transport.write(pings);
      await turn();
    }
    expect(await session.closed).toMatchObject({ code: "busy" });
  }, 20_000); // some 150,000 answers are 3 s of processor time

  test("cannot make the session throw, whatever frames it sends", async () => {
    const anyType = fc.constantFrom(...Object.values(frameTypes));
    const anySend = fc.tuple(anyType, fc.integer({ min: 0, max: 6 }), fc.uint8Array({ maxLength: 9 }));
    const property = fc.asyncProperty(fc.array(anySend, { maxLength: 25 }), async (sends) => {
      const { peer, session, accepted } = await start();
      peer.send(frameTypes.open, 1, encodeOpen(udp));
      for (const [type, streamId, payload] of sends) if (!peer.transport.destroyed) peer.send(type, streamId, payload);
      for (let count = 0; count < 6; count += 1) await turn();
      session.destroy();
      const reason = await session.closed;
      // `internal` only as the far end's own word: an error of ours has a cause.
      return accepted.every((stream) => stream.destroyed) && isAppError(reason) && reason.cause === undefined;
    });
    const outcome = await fc.check(property, { numRuns: 500, interruptAfterTimeLimit: 3000 });
    expect(outcome.counterexample).toBeNull();
  });
});
