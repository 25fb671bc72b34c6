// One UDP flow of a laptop: a connected socket, so that only the target's answers come in and its ICMP refusal is seen.
// Datagrams are dropped, never queued without bound, when either side is slow.
// @from egress/accept.ts
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import type { Clock, Timer } from "#base/clock.ts";
import { PacedSends } from "#tunnel/paced-sends.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { Endpoint } from "#wire/open.ts";
import { translateSocketError } from "./dial.ts";

/** chosen: a flow that is silent both ways for this long ends. */
const idleMs = 60_000;
/** chosen: what the kernel holds for us (it caps it at rmem_max): answers come in bursts, and we are busy with others. */
const receiveBufferBytes = 1024 * 1024;
/** chosen: bytes that may wait in a socket's send queue. */
const maxSendQueueBytes = 1024 * 1024;

/** A socket that talks to the target only. */
export async function connectUdp(target: Endpoint): Promise<Socket> {
  const type = isIPv6(target.address) ? "udp6" : "udp4";
  const socket = createSocket({ type, recvBufferSize: receiveBufferBytes });
  try {
    socket.connect(target.port, target.address);
    await once(socket, "connect");
    return socket;
  } catch (error) {
    socket.close();
    throw translateSocketError(error as NodeJS.ErrnoException, formatEndpoint(target));
  }
}

/** What a stream's datagram is on the socket, and the other way round; undefined is left out. */
export interface Carried {
  readonly toSocket: (datagram: Uint8Array) => Buffer | undefined;
  readonly toStream: (message: Buffer, from: string) => Uint8Array | undefined;
}
/** Copied: the socket may send later, and the stream's bytes are only lent. */
const asTheyAre: Carried = { toSocket: (datagram) => Buffer.from(datagram), toStream: (message) => message };

export interface Join {
  readonly target: Endpoint;
  readonly clock: Clock;
  readonly carried?: Carried;
}

/** Carries datagrams both ways until either side ends, the target refuses, or nothing is said for a minute. */
export function joinUdp(stream: TunnelStream, socket: Socket, { target, clock, carried = asTheyAre }: Join): void {
  let lastActiveMs = clock.now();
  let idleTimer: Timer;
  let closed = false;
  const close = (error?: Error): void => {
    if (closed) return;
    closed = true;
    idleTimer[Symbol.dispose]();
    paced.clear();
    socket.close();
    stream.destroy(error);
  };
  const watchIdle = (afterMs: number): Timer =>
    clock.after(afterMs, () => {
      const silentMs = clock.now() - lastActiveMs;
      if (silentMs >= idleMs) close();
      else idleTimer = watchIdle(idleMs - silentMs);
    });
  idleTimer = watchIdle(idleMs);

  const paced = new PacedSends((message) => {
    if (socket.getSendQueueSize() > maxSendQueueBytes) return;
    socket.send(message, (error) => {
      if (error !== null) close(translateSocketError(error, formatEndpoint(target)));
    });
  });
  stream.onDatagram((datagram) => {
    if (closed) return;
    lastActiveMs = clock.now();
    const message = carried.toSocket(datagram);
    if (message !== undefined) paced.send(message);
  });
  socket.on("message", (message, from) => {
    const datagram = carried.toStream(message, from.address);
    if (datagram === undefined) return;
    lastActiveMs = clock.now();
    stream.sendDatagram(datagram);
  });
  socket.on("error", (error) => close(translateSocketError(error, formatEndpoint(target))));
  stream.on("error", () => close());
  stream.on("end", () => close());
  stream.on("close", () => close());
  stream.resume();
}
