// Outbound from device to far end without privileges: the device is in memory, and the laptop's kernel is played by two
// addresses of 127.0.0.0/8: "A" is 127.0.0.1 with the real listener, the peer 127.0.0.2 is what the test connects from
// when it sees the released SYN. Bytes then flow through the real sockets. The real kernel's part is in test/netns.
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { startOutbound, type Outbound, type OutboundOptions } from "#daemon/outbound/outbound.ts";
import { FakePacketDevice } from "#kernel/packet-device.fake.ts";
import { parsePrefix } from "#packet/address.ts";
import { PacketView, protocols } from "#packet/packet-view.ts";
import { tcpPacket, udpPacket } from "#packet/packet.fake.ts";
import { flagsOf, sequenceOf, tcpFlags } from "#packet/tcp.ts";
import { Translation } from "#packet/translation.ts";
import { createSessionPair, type SessionPair } from "#tunnel/session-pair.fake.ts";
import type { IncomingStream, TunnelStream } from "#tunnel/tunnel.ts";

const own = { address: "127.0.0.1", peer: "127.0.0.2", probe: "127.0.0.3" };
const target = { destination: "10.96.0.10", destinationPort: 80 };
const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

interface Laptop {
  readonly outbound: Outbound;
  readonly pair: SessionPair;
  readonly flows: unknown[];
  send(packet: Uint8Array): void;
  /** The next packet that the laptop's kernel gets. */
  next(): Promise<PacketView>;
  incoming(): Promise<IncomingStream>;
}

async function setUp(more: Partial<OutboundOptions> = {}): Promise<Laptop> {
  const pair = await createSessionPair(systemClock);
  const [device, kernel] = FakePacketDevice.pair();
  const packets = createQueue<PacketView>();
  kernel.onPacket((packet) => {
    const view = new PacketView();
    if (view.load(packet.slice()) === undefined) packets.push(view);
  });
  const offers = createQueue<IncomingStream>();
  pair.accepter.onIncoming((offer) => offers.push(offer));
  const flows: unknown[] = [];
  const outbound = await startOutbound({
    device,
    addresses: { v4: own },
    session: pair.opener,
    clock: systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
    onFlow: (flow) => flows.push(flow),
    ...more,
  });
  cleanUps.push(
    () => pair[Symbol.asyncDispose](),
    () => outbound.close(),
  );
  return { outbound, pair, flows, send: (packet) => kernel.write(packet), next: packets.shift, incoming: offers.shift };
}

function createQueue<T>(): { push(item: T): void; shift(): Promise<T> } {
  const items: T[] = [];
  const waiting: ((item: T) => void)[] = [];
  return {
    push: (item) => {
      const wake = waiting.shift();
      if (wake === undefined) items.push(item);
      else wake(item);
    },
    shift: () => {
      const item = items.shift();
      return item === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(item);
    },
  };
}

const syn = (sourcePort: number): Uint8Array =>
  tcpPacket({ source: own.address, sourcePort, ...target, flags: tcpFlags.syn, sequence: 1 });

/** Plays the kernel: completes the handshake that the released SYN asks for. */
async function follow(released: PacketView): Promise<Socket> {
  const { sourcePort, destinationPort } = released;
  const socket = connect({
    host: own.address,
    port: destinationPort,
    localAddress: own.peer,
    localPort: sourcePort,
    allowHalfOpen: true,
  });
  await once(socket, "connect");
  cleanUps.push(() => socket.destroy());
  return socket;
}

async function connected(laptop: Laptop, port = 40_000): Promise<{ socket: Socket; stream: TunnelStream }> {
  laptop.send(syn(port));
  const stream = (await laptop.incoming()).accept();
  return { socket: await follow(await laptop.next()), stream };
}

async function readAll(readable: Socket | TunnelStream): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of readable.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

describe("a TCP connection", () => {
  test("carries bytes both ways and keeps half-close in either order", async () => {
    const laptop = await setUp();
    const bulk = Buffer.alloc(2_000_000, "0123456789abcdef");
    const first = await connected(laptop);
    first.socket.end("request");
    expect((await readAll(first.stream)).toString()).toBe("request");
    first.stream.end(bulk);
    expect((await readAll(first.socket)).equals(bulk)).toBe(true);
    const second = await connected(laptop, 40_001);
    second.stream.end("greeting");
    expect((await readAll(second.socket)).toString()).toBe("greeting");
    second.socket.end(bulk);
    expect((await readAll(second.stream)).equals(bulk)).toBe(true);
    expect(laptop.flows).toHaveLength(2);
    expect(laptop.flows[0]).toMatchObject({
      protocol: "tcp",
      outcome: "opened",
      target: { address: "10.96.0.10", port: 80 },
    });
  });

  test("is reset when the far end resets it, and the other way round", async () => {
    const laptop = await setUp();
    const first = await connected(laptop);
    first.stream.destroy(new AppError("peer_reset", "gone"));
    const [error] = (await once(first.socket, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNRESET");
    const reset = await laptop.next();
    expect([flagsOf(reset) & tcpFlags.rst, reset.destinationPort]).toEqual([tcpFlags.rst, 40_000]);
    const second = await connected(laptop, 40_001);
    second.stream.resume();
    second.socket.resetAndDestroy();
    const [lost] = (await once(second.stream, "error")) as [AppError];
    expect(lost.code).toBe("peer_reset");
  });

  test("whose far end is gone before the program's side stands is reset", async () => {
    const laptop = await setUp();
    laptop.send(syn(40_000));
    const stream = (await laptop.incoming()).accept();
    const released = await laptop.next();
    stream.destroy(new AppError("peer_reset", "gone"));
    await new Promise((resolve) => setImmediate(resolve));
    const socket = await follow(released).catch((error: unknown) => error as NodeJS.ErrnoException);
    const code =
      socket instanceof Error ? socket.code : ((await once(socket, "error")) as [NodeJS.ErrnoException])[0].code;
    expect(code).toBe("ECONNRESET");
  });

  test("that is refused answers the SYN with a reset", async () => {
    const laptop = await setUp();
    laptop.send(syn(40_000));
    (await laptop.incoming()).reject("refused", "no");
    const answer = await laptop.next();
    expect([flagsOf(answer) & tcpFlags.rst, answer.sourcePort, answer.destinationPort]).toEqual([
      tcpFlags.rst,
      80,
      40_000,
    ]);
    expect(laptop.flows).toMatchObject([{ outcome: "refused" }]);
  });

  test("ends with the session", async () => {
    const laptop = await setUp();
    const { socket } = await connected(laptop);
    laptop.pair.opener.destroy(new AppError("link_lost", "cut"));
    const [error] = (await once(socket, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNRESET");
  });
});

test("a stranger at the listener is reset", async () => {
  const laptop = await setUp();
  laptop.send(syn(40_000));
  (await laptop.incoming()).accept();
  const released = await laptop.next();
  const stranger = connect({ host: own.address, port: released.destinationPort });
  const [error] = (await once(stranger, "error")) as [NodeJS.ErrnoException];
  expect(error.code).toBe("ECONNRESET");
  expect(laptop.outbound.stats().tcpStrangers).toBe(1);
  await follow(released);
});

test("the probe's address is answered without the session", async () => {
  const laptop = await setUp();
  laptop.outbound.setSession(undefined);
  laptop.send(
    tcpPacket({
      source: own.address,
      sourcePort: 40_000,
      destination: own.probe,
      destinationPort: 7,
      flags: tcpFlags.syn,
    }),
  );
  const socket = await follow(await laptop.next());
  socket.end("nonce");
  expect((await readAll(socket)).toString()).toBe("nonce");
});

test("datagrams are answered from the target", async () => {
  const laptop = await setUp();
  laptop.send(udpPacket({ source: own.address, sourcePort: 41_000, ...target }, Buffer.from("ping")));
  const stream = (await laptop.incoming()).accept();
  stream.onDatagram((datagram) => stream.sendDatagram(datagram));
  const answer = await laptop.next();
  expect(answer).toMatchObject({ protocol: protocols.udp, sourcePort: 80, destinationPort: 41_000 });
  expect(Buffer.from(answer.bytes.subarray(answer.payloadOffset, answer.end)).toString()).toBe("ping");
});

test("close() refuses what is held, resets what stands, and takes nothing more", async () => {
  const laptop = await setUp();
  const { socket } = await connected(laptop);
  const ended = once(socket, "error");
  laptop.send(syn(40_001));
  await laptop.incoming();
  const closed = laptop.outbound.close();
  const resets = [await laptop.next(), await laptop.next()];
  expect(
    resets
      .map((packet) => [flagsOf(packet) & tcpFlags.rst, packet.destinationPort])
      .toSorted(([, a], [, b]) => a! - b!),
  ).toEqual([
    [tcpFlags.rst, 40_000], // whose socket is the listener's
    [tcpFlags.rst, 40_001],
  ]);
  expect(await ended).toMatchObject([{ code: "ECONNRESET" }]);
  await closed;
  await laptop.outbound.close();
});

// Story: the last bytes that our socket was given waited in the device's queue, and the reset overtook them.
test("close() has what waits in the device's queue pass before its resets", async () => {
  const laptop = await setUp();
  laptop.send(syn(40_000));
  (await laptop.incoming()).accept();
  const released = await laptop.next();
  await follow(released);
  const { sourcePort, destinationPort } = released;
  const toPeer = {
    source: own.address,
    sourcePort: destinationPort,
    destination: own.peer,
    destinationPort: sourcePort,
    acknowledgement: 2,
  };
  laptop.send(tcpPacket({ ...toPeer, flags: tcpFlags.syn | tcpFlags.ack, sequence: 7 }));
  await laptop.next();
  laptop.send(tcpPacket({ ...toPeer, flags: tcpFlags.ack, sequence: 8, payload: Buffer.from("last words") }));
  const closed = laptop.outbound.close();
  const seen = [await laptop.next(), await laptop.next()];
  expect(seen.map((packet) => [flagsOf(packet), sequenceOf(packet)])).toEqual([
    [tcpFlags.ack, 8],
    [tcpFlags.rst | tcpFlags.ack, 18],
  ]);
  await closed;
});

test("a connection and a datagram to an address that only the laptop sees go to the one in the cluster", async () => {
  const prefixes = { real: parsePrefix("10.7.0.0/16")!, virtual: parsePrefix("10.96.0.0/16")! };
  const translation = new Translation([prefixes]);
  const laptop = await setUp({ realAddress: (address) => translation.toReal(address) });
  laptop.send(syn(5001));
  const tcp = await laptop.incoming();
  expect(tcp.request).toEqual({ kind: "tcp", target: { address: "10.7.0.10", port: 80 } });
  tcp.reject("refused", "no");
  // The program hears from whom it asked.
  expect((await laptop.next()).source()).toEqual(Uint8Array.of(10, 96, 0, 10));
  laptop.send(udpPacket({ source: own.address, sourcePort: 5002, ...target }, Uint8Array.of(1)));
  const udp = await laptop.incoming();
  expect(udp.request).toEqual({ kind: "udp", target: { address: "10.7.0.10", port: 80 } });
  const stream = udp.accept();
  stream.onDatagram((datagram) => stream.sendDatagram(datagram));
  expect((await laptop.next()).source()).toEqual(Uint8Array.of(10, 96, 0, 10));
});
