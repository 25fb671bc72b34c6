import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { Duplex, duplexPair } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import type { OpenRequest } from "#wire/open.ts";
import { joinDuplex } from "./pipe.ts";
import { createSessionPair } from "./session-pair.fake.ts";
import type { SessionPair } from "./session-pair.fake.ts";
import type { TunnelStream } from "./tunnel.ts";

const tcp: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 80 } };
const live = new AbortController().signal;

async function readAll(stream: Duplex): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(stream, "end");
  return Buffer.concat(chunks).toString();
}

async function openStream(pair: SessionPair): Promise<[TunnelStream, TunnelStream]> {
  const accepted = new Promise<TunnelStream>((resolve) => {
    pair.accepter.onIncoming((incoming) => resolve(incoming.accept()));
  });
  return [await pair.opener.open(tcp, live), await accepted];
}

/** Both ends of a TCP connection over loopback. */
async function openSockets(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection");
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  const [far] = (await accepted) as [Socket];
  server.close();
  return [socket, far];
}

/** Whether room comes within the next turns of the event loop. */
async function drains(stream: Duplex): Promise<boolean> {
  let drained = false;
  stream.once("drain", () => (drained = true));
  for (let count = 0; count < 50 && !drained; count += 1) await turn();
  return drained;
}

/** Has so many blocks of 64 KiB to say, as fast as they are taken. */
function createSource(blocks: number): Duplex {
  let left = blocks;
  return new Duplex({
    allowHalfOpen: true,
    read() {
      this.push(left-- > 0 ? Buffer.alloc(64 * 1024) : null);
    },
    write: (_chunk, _encoding, done) => done(),
  });
}

describe("joinDuplex()", () => {
  test("lets bulk leave in few large frames", async () => {
    await using pair = await createSessionPair();
    const [stream, far] = await openStream(pair);
    const pieces: number[] = [];
    far.on("data", (chunk: Buffer) => pieces.push(chunk.length));
    joinDuplex(createSource(256), stream);
    await once(far, "end");
    far.end();
    expect(pieces.reduce((sum, bytes) => sum + bytes, 0)).toBe(256 * 64 * 1024);
    expect(pieces.length).toBeLessThan(256 / 2 + 32);
  });

  test("lets no more wait than the least where the far end gives no credit", async () => {
    await using pair = await createSessionPair();
    const [stream] = await openStream(pair);
    const { destroy, closed } = joinDuplex(createSource(256), stream);
    for (let count = 0; count < 50; count += 1) await turn();
    expect(stream.writableLength).toBeGreaterThanOrEqual(64 * 1024);
    expect(stream.writableLength).toBeLessThanOrEqual(2 * 64 * 1024);
    destroy();
    await closed;
  });

  test.each([
    ["left", "right"],
    ["right", "left"],
  ])("keeps half-close when the %s side ends first, over socket, stream and stream", async (first) => {
    await using one = await createSessionPair();
    await using two = await createSessionPair();
    const [nearSocket, socket] = await openSockets();
    const [a1, b1] = await openStream(one);
    const [a2, b2] = await openStream(two);
    const joined = [joinDuplex(socket, a1), joinDuplex(b1, a2)];
    const [early, late] = first === "left" ? [nearSocket, b2] : [b2, nearSocket];
    early.end("question");
    expect(await readAll(late)).toBe("question");
    late.end("answer");
    expect(await readAll(early)).toBe("answer");
    for (const pipe of joined) expect(await pipe.closed).toBeUndefined();
    expect([one.opener.streamCount, one.accepter.streamCount, two.opener.streamCount]).toEqual([0, 0, 0]);
  });

  test("passes a reset on with its code, as RST at a socket", async () => {
    await using pair = await createSessionPair();
    const [nearSocket, socket] = await openSockets();
    const [a, b] = await openStream(pair);
    const joined = joinDuplex(socket, a);
    const failed = once(nearSocket, "error");
    await new Promise((resolve) => nearSocket.write("x", resolve));
    b.destroy(new AppError("peer_reset", "the process went away"));
    expect((await failed)[0]).toMatchObject({ code: "ECONNRESET" });
    expect(await joined.closed).toMatchObject({ code: "peer_reset" });
  });

  test("passes a socket's reset on as peer_reset", async () => {
    await using pair = await createSessionPair();
    const [nearSocket, socket] = await openSockets();
    const [a, b] = await openStream(pair);
    joinDuplex(socket, a);
    const failed = once(b, "error");
    nearSocket.resetAndDestroy();
    expect((await failed)[0]).toMatchObject({ code: "peer_reset" });
  });

  test("ends both when one is destroyed without a word", async () => {
    const [a, farA] = duplexPair();
    const [b, farB] = duplexPair();
    const joined = joinDuplex(farA, b);
    farB.resume();
    a.resume();
    farA.destroy();
    expect(await joined.closed).toBeInstanceOf(Error);
    expect(b.destroyed).toBe(true);
  });

  test("ends both on destroy", async () => {
    const [, farA] = duplexPair();
    const [b] = duplexPair();
    const joined = joinDuplex(farA, b);
    joined.destroy(new AppError("cancelled", "enough"));
    expect(await joined.closed).toMatchObject({ code: "cancelled" });
    expect([farA.destroyed, b.destroyed]).toEqual([true, true]);
  });

  test("brakes the writer when the reader is slow", async () => {
    await using pair = await createSessionPair();
    const [a, b] = await openStream(pair);
    const [outside, inside] = duplexPair();
    joinDuplex(inside, a);
    const block = Buffer.alloc(16 * 1024);
    let blocks = 0;
    while (outside.write(block) || (await drains(outside))) blocks += 1;
    expect(blocks * block.length).toBeLessThan(1024 * 1024);
    outside.end();
    expect((await readAll(b)).length).toBe((blocks + 1) * block.length);
  });
});
