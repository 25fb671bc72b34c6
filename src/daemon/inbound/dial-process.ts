// The last hop of inbound traffic: a connection, or a UDP socket per flow, to the process on the laptop.
// @from daemon/inbound/accept.ts
import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import type { LookupAddress } from "node:dns";
import { isIP, isIPv6 } from "node:net";
import type { Duplex } from "node:stream";
import type { Logger } from "#base/log.ts";
import { dial } from "#tunnel/dial.ts";
import { PacedSends } from "#tunnel/paced-sends.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream } from "#tunnel/tunnel.ts";
import type { InterceptPort } from "#wire/manager-api.ts";
import { formatEndpoint } from "#wire/open.ts";
import type { Endpoint } from "#wire/open.ts";

/** chosen: bytes that may wait in a UDP socket's send queue; more is dropped. */
const maxSendQueueBytes = 1024 * 1024;

/** Dials the process and joins both connections; accepts the stream only once the process has. Never rejects. */
export async function dialProcess(
  incoming: IncomingStream,
  port: InterceptPort,
  log: Logger,
  onJoined: (caller: Duplex, process: Duplex) => void,
): Promise<void> {
  const { signal } = incoming;
  const socket = await dial({ address: port.targetHost, port: port.targetPort }, signal).catch((error: unknown) => {
    if (!signal.aborted) refuse(incoming, port, error as NodeJS.ErrnoException, log);
  });
  if (socket === undefined) return;
  if (signal.aborted) {
    socket.destroy();
    return;
  }
  const stream = incoming.accept();
  joinDuplex(stream, socket);
  onJoined(stream, socket);
}

function refuse(incoming: IncomingStream, port: InterceptPort, error: NodeJS.ErrnoException, log: Logger): void {
  const target = formatTarget(port);
  log.info("process did not take the connection", { target, error: error.code ?? error.message });
  const why = error.code === "ECONNREFUSED" ? "nothing listens there" : error.message;
  incoming.reject(resetReasonOf(error), `${target} on the laptop did not take the connection: ${why}`);
}

/** By the laptop's own resolver, but in tests. */
type LookUp = (name: string) => Promise<readonly LookupAddress[]>;

const lookUpAll: LookUp = (name) => lookup(name, { all: true });

/** One UDP flow: a connected socket of its own, so that answers find their caller. Ends with the stream. Never rejects. */
export async function relayDatagrams(
  incoming: IncomingStream,
  port: InterceptPort,
  log: Logger,
  lookUp: LookUp = lookUpAll,
): Promise<void> {
  const refuseFlow = (error: NodeJS.ErrnoException): void => {
    log.info("process did not take the datagrams", { target: formatTarget(port), error: error.message });
    incoming.reject(resetReasonOf(error), `${formatTarget(port)} on the laptop: ${error.message}`);
  };
  try {
    const address = await findAddress(port.targetHost, lookUp);
    if (!incoming.signal.aborted) relayTo(incoming, { address, port: port.targetPort }, refuseFlow);
  } catch (error) {
    if (!incoming.signal.aborted) refuseFlow(error as NodeJS.ErrnoException);
  }
}

/** A UDP socket is of one family, so a name's address is chosen before there is a socket: IPv4 where it has one. */
async function findAddress(host: string, lookUp: LookUp): Promise<string> {
  if (isIP(host) !== 0) return host;
  const found = await lookUp(host);
  return (found.find(({ family }) => family === 4) ?? found[0])?.address ?? host;
}

function relayTo(incoming: IncomingStream, target: Endpoint, refuseFlow: (error: Error) => void): void {
  const socket = createSocket(isIPv6(target.address) ? "udp6" : "udp4");
  socket.once("error", (error) => {
    refuseFlow(error);
    socket.close();
  });
  // Not as the callback of `connect`, which is called with the error, too, and then instead of 'error'.
  socket.once("connect", () => {
    if (incoming.signal.aborted) {
      socket.close();
      return;
    }
    const stream = incoming.accept();
    socket.removeAllListeners("error");
    socket.on("error", (error) => stream.destroy(error)); // ICMP refusal of a later datagram
    socket.on("message", (datagram) => stream.sendDatagram(datagram));
    const paced = new PacedSends((datagram) => {
      if (stream.destroyed || socket.getSendQueueSize() > maxSendQueueBytes) return;
      socket.send(datagram, (error) => {
        // The kernel tells a refusal once: to what reads, or to what sends next. Others are lost like any datagram.
        if ((error as NodeJS.ErrnoException | null)?.code === "ECONNREFUSED") stream.destroy(error ?? undefined);
      });
    });
    // Copied: the socket may send later, and the stream's bytes are only lent.
    stream.onDatagram((datagram) => {
      if (!stream.destroyed) paced.send(Buffer.from(datagram));
    });
    stream.on("error", () => undefined); // 'close' follows and is handled
    stream.on("end", () => stream.destroy());
    stream.once("close", () => {
      paced.clear();
      socket.close();
    });
    stream.resume();
  });
  socket.connect(target.port, target.address);
}

function formatTarget(port: InterceptPort): string {
  return formatEndpoint({ address: port.targetHost, port: port.targetPort });
}
