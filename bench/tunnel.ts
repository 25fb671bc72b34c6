// Figures of the multiplexer alone, for information: both ends in this one process, over a TCP connection on loopback.
// Bulk figures are therefore those of one processor core that does the work of two ends.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openSession } from "#tunnel/session.ts";
import type { Report } from "./results.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import { protocolVersions } from "#wire/hello.ts";
import type { Hello } from "#wire/hello.ts";
import type { OpenRequest } from "#wire/open.ts";

const sink: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 1 } };
const echo: OpenRequest = { kind: "tcp", target: { address: "10.0.0.1", port: 7 } };
const live = new AbortController().signal;

async function openPair(): Promise<[TunnelSession, TunnelSession]> {
  const server = createServer({ noDelay: true }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection");
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const [far] = (await accepted) as [Socket];
  server.close();
  const hello = (role: Hello["role"]): Hello => ({ protocol: protocolVersions, software: "bench", role, features: [] });
  const common = { clock: systemClock, log: silentLogger, signal: live };
  return Promise.all([
    openSession({ ...common, transport: socket, role: "opener", hello: hello("laptop") }),
    openSession({ ...common, transport: far, role: "accepter", hello: hello("manager") }),
  ]);
}

/** Writes `bytes` in blocks and resolves when the far end has ended its half too. */
async function send(stream: TunnelStream, bytes: number, block: Buffer): Promise<void> {
  for (let sent = 0; sent < bytes; sent += block.length) {
    if (!stream.write(block)) await once(stream, "drain");
  }
  stream.end();
  stream.resume();
  await once(stream, "end");
}

async function measure(work: () => Promise<void>): Promise<number> {
  const startMs = systemClock.now();
  await work();
  return (systemClock.now() - startMs) / 1000;
}

async function bulk(opener: TunnelSession, streams: number, blockBytes: number): Promise<string> {
  const totalBytes = 1024 * 1024 * 1024;
  const block = Buffer.alloc(blockBytes);
  const open = await Promise.all(Array.from({ length: streams }, async () => opener.open(sink, live)));
  const seconds = await measure(async () => {
    await Promise.all(open.map(async (stream) => send(stream, totalBytes / streams, block)));
  });
  return `${((totalBytes * 8) / 1e9 / seconds).toFixed(2)} Gbit/s`;
}

async function roundTrips(opener: TunnelSession, count: number): Promise<string> {
  const stream = await opener.open(echo, live);
  const message = Buffer.alloc(64);
  const times: number[] = [];
  for (let round = 0; round < count; round += 1) {
    const startMs = systemClock.now();
    stream.write(message);
    await once(stream, "data");
    times.push((systemClock.now() - startMs) * 1000);
  }
  stream.destroy();
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(count * share)] ?? 0).toFixed(0);
  return `median ${at(0.5)} µs, 99 % ${at(0.99)} µs`;
}

async function opens(opener: TunnelSession, count: number): Promise<string> {
  const seconds = await measure(async () => {
    await Promise.all(
      Array.from({ length: count }, async () => {
        const stream = await opener.open(echo, new AbortController().signal);
        stream.end("x").resume();
        await once(stream, "end");
      }),
    );
  });
  return `${Math.round(count / seconds)} a second`;
}

async function underLoad(opener: TunnelSession): Promise<string> {
  let running = true;
  const stream = await opener.open(sink, live);
  const block = Buffer.alloc(64 * 1024);
  const load = (async () => {
    while (running) if (!stream.write(block)) await once(stream, "drain");
    stream.destroy();
  })();
  const figure = await roundTrips(opener, 500);
  running = false;
  await load;
  return figure;
}

/** One line of the report. */

export async function benchTunnel(report: Report): Promise<void> {
  const [opener, accepter] = await openPair();
  accepter.onIncoming((incoming) => {
    const stream = incoming.accept();
    const isEcho = incoming.request.kind === "tcp" && incoming.request.target.port === 7;
    if (isEcho) stream.pipe(stream);
    else stream.resume().once("end", () => stream.end());
  });
  report("tunnel: one stream, 64 KiB writes", await bulk(opener, 1, 64 * 1024));
  report("tunnel: one stream, 1 KiB writes", await bulk(opener, 1, 1024));
  report("tunnel: 100 streams, 64 KiB writes", await bulk(opener, 100, 64 * 1024));
  report("tunnel: echo of 64 bytes", await roundTrips(opener, 5000));
  report("tunnel: echo beside a bulk stream", await underLoad(opener));
  report("tunnel: streams opened, used, closed", await opens(opener, 10_000));
  opener.destroy();
  await accepter.closed;
}
