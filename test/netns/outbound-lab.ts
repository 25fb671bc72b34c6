// The daemon's side of outbound.test.ts, in a network namespace of its own: a real device, outbound over it, a session
// in memory, and a "cluster" whose services are told apart by port.
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { startOutbound, type Outbound } from "#daemon/outbound/outbound.ts";
import { testDataPath } from "#daemon/outbound/self-test.ts";
import { carryEcho, connectEcho } from "#egress/echo.ts";
import { joinUdp } from "#egress/udp-flow.ts";
import { openTun, TunDevice } from "#kernel/tun.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import { createSessionPair, type SessionPair } from "#tunnel/session-pair.fake.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import type { Endpoint } from "#wire/open.ts";
import { echoStandIns, makeBulk, services } from "./outbound-services.ts";
import { answerCalls } from "./process-calls.ts";

const bulk = makeBulk();
const deviceName = "tel0";
const probes = { v4: "246.246.0.3", v6: "fd00:246::3" } as const;

const counts = { flooded: 0, receivedBySendFirst: 0, endedBySilent: 0, errors: [] as string[] };
const ip = (...args: string[]): void => void execFileSync("ip", args);

function serve(port: number, socket: Socket): void {
  socket.on("error", (error) => counts.errors.push(`${port}: ${(error as NodeJS.ErrnoException).code}`));
  switch (port) {
    case services.echo:
      socket.pipe(socket);
      return;
    case services.answerAfterEnd:
      socket.resume().on("end", () => socket.end(bulk));
      return;
    case services.sendFirst:
      socket.end(bulk);
      socket.on("data", (bytes: Buffer) => (counts.receivedBySendFirst += bytes.length));
      return;
    case services.flood: {
      socket.resume();
      const chunk = Buffer.alloc(64 * 1024);
      const push = (): void => {
        while (!socket.destroyed && socket.write(chunk)) counts.flooded += chunk.length;
      };
      socket.on("drain", push);
      push();
      return;
    }
    case services.reset:
      socket.once("data", () => socket.resetAndDestroy());
      return;
    default:
      socket.destroy();
  }
}

/** A real listener for each service; a name of the cluster's stands for it by its port. */
const listening = new Map<number, number>();
for (const port of [services.echo, services.answerAfterEnd, services.sendFirst, services.flood, services.reset]) {
  const listener = createServer({ allowHalfOpen: true }, (socket) => serve(port, socket));
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  listening.set(port, (listener.address() as AddressInfo).port);
}

/** Asked for real, as the manager does, of somebody on this machine who stands for the cluster's address. */
async function answerEchoes(incoming: IncomingStream, { address }: Endpoint): Promise<void> {
  const asked = { address: echoStandIns[address] ?? "", port: 0 };
  if (asked.address === "") {
    incoming.reject("denied", "no");
    return;
  }
  try {
    const socket = await connectEcho(asked);
    joinUdp(incoming.accept(), socket, { target: asked, clock: systemClock, carried: carryEcho(asked) });
  } catch (error) {
    incoming.reject(resetReasonOf(error), "no");
  }
}

function onIncoming(incoming: IncomingStream): void {
  const { request } = incoming;
  if (request.kind === "udp") {
    if (request.target.port === services.udpRefused) {
      incoming.reject("refused", "no");
      return;
    }
    const stream = incoming.accept();
    stream.onDatagram((datagram) => stream.sendDatagram(datagram));
    return;
  }
  if (request.kind === "echo") {
    void answerEchoes(incoming, request.target);
    return;
  }
  if (request.kind !== "tcp") return;
  const { port } = request.target;
  if (port === services.blackHole) return;
  if (port === services.unreachable || port === services.denied) {
    incoming.reject(port === services.denied ? "denied" : "unreachable", "no");
    return;
  }
  if (inMemory.includes(port)) serveInMemory(port, incoming.accept());
  else dialListening(port, incoming);
}

const inMemory: readonly number[] = [services.crowd, services.silent, services.answerThenReset];

function serveInMemory(port: number, stream: Duplex): void {
  stream.on("error", () => undefined);
  const reset = (): unknown => stream.destroy(new AppError("peer_reset", "the service ends so"));
  if (port === services.crowd) stream.pipe(stream);
  else if (port === services.answerThenReset) stream.once("data", () => stream.write("enough", reset));
  else stream.resume().once("end", () => counts.endedBySilent++);
}

function dialListening(port: number, incoming: IncomingStream): void {
  const real = listening.get(port);
  if (real === undefined) {
    incoming.reject("refused", "no");
    return;
  }
  const socket = connect({ port: real, host: "127.0.0.1", allowHalfOpen: true });
  socket.once("connect", () => joinDuplex(socket, incoming.accept()));
}

let pair: SessionPair | undefined;
const controller = new AbortController();

async function newSession(): Promise<void> {
  pair = await createSessionPair(systemClock);
  pair.accepter.onIncoming(onIncoming);
  outbound.setSession(pair.opener);
}

const tun = openTun(deviceName);
ip("link", "set", "lo", "up");
ip("address", "add", "246.246.0.1/29", "dev", deviceName);
ip("address", "add", "fd00:246::1/64", "dev", deviceName, "nodad");
ip("link", "set", deviceName, "mtu", "65535", "txqueuelen", "1000", "up"); // half of what the helper gives it
ip("route", "add", "10.96.0.0/16", "dev", deviceName);
ip("-6", "route", "add", "fd00:96::/64", "dev", deviceName);
ip("address", "add", "10.9.9.9/32", "dev", "lo");
// nobody answers at one address, and there is no way to another
ip("link", "add", "nobody", "type", "veth", "peer", "name", "nobody1");
for (const name of ["nobody", "nobody1"]) ip("link", "set", name, "arp", "off", "up");
ip("route", "add", "10.9.8.0/24", "dev", "nobody");
ip("-6", "route", "add", "fd00:98::/64", "dev", "nobody");
ip("route", "add", "unreachable", "10.9.7.0/24");
ip("-6", "route", "add", "unreachable", "fd00:97::/64");
writeFileSync("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
const device = new TunDevice(tun.fd, 65_535);
const outbound: Outbound = await startOutbound({
  device,
  addresses: {
    v4: { address: "246.246.0.1", peer: "246.246.0.2", probe: probes.v4 },
    v6: { address: "fd00:246::1", peer: "fd00:246::2", probe: probes.v6 },
  },
  clock: systemClock,
  log: silentLogger,
  signal: controller.signal,
});
await newSession();

const handlers = {
  selfTest: async (family: "v4" | "v6"): Promise<void> => {
    await testDataPath({
      probe: probes[family],
      deviceName,
      stats: () => outbound.stats(),
      clock: systemClock,
      signal: controller.signal,
      routeTo: async (address) => {
        const text = await Promise.resolve(execFileSync("ip", ["route", "get", address]).toString());
        return / dev (\S+)/.exec(text)?.[1];
      },
    });
  },
  run: (file: string, ...args: string[]): string => execFileSync(file, args).toString(),
  stats: () => outbound.stats(),
  counts: () => ({ ...counts, heapBytes: process.memoryUsage().rss }),
  dropSession: () => {
    outbound.setSession(undefined);
    pair?.opener.destroy(new AppError("link_lost", "cut by the test"));
  },
  newSession,
  listenPorts: (): number[] =>
    [
      ...execFileSync("ss", ["-Hltn"])
        .toString()
        .matchAll(/246\.246\.0\.1:(\d+)/g),
    ].map((match) => Number(match[1])),
  close: () => outbound.close(),
};
export type LabHandlers = typeof handlers;
answerCalls(handlers);
