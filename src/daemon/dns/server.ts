// The sockets that programs' queries arrive on, UDP and TCP. Knows framing and limits, nothing of names.
// @to daemon/dns/resolve.ts
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { AppError, isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { DnsTransport } from "./resolve.ts";
import { DnsFrames, frameMessage } from "./tcp-frames.ts";

export interface DnsAddress {
  readonly address: string;
  readonly port: number;
}
export interface DnsListenAddress extends DnsAddress {
  /** Left out where this host has no such address. */
  readonly optional?: true;
}
export type Answer = (message: Uint8Array, transport: DnsTransport) => Promise<Uint8Array | undefined>;
/** Whether our own forwarded queries leave from that port now. */
export type IsOwnPort = (port: number, transport: DnsTransport) => boolean;

/** chosen: the kernel caps it at rmem_max; a burst of look-ups waits here while we are busy. */
const receiveBufferBytes = 4 * 1024 * 1024;
/** chosen: sockets that share a UDP port, so that their buffers add up: rmem_max is 270 small datagrams by default. */
const udpSockets = 8;
/** chosen: queries under way from UDP; more are dropped, and their senders ask again. */
const maxUdpQueries = 8192;
/** chosen: TCP clients, and queries under way of each before it is not read further. */
const maxConnections = 256;
const maxQueriesPerConnection = 64;
/** chosen: a client that says nothing is let go (RFC 7766 §6.2.3). */
const idleMs = 10_000;
/** chosen: attempts to find a number that is free on all addresses, for UDP and TCP. */
const bindAttempts = 20;

interface Pair {
  readonly udp: readonly UdpSocket[];
  readonly tcp: Server;
  readonly bound: DnsAddress;
}

export class DnsServer {
  readonly #answer: Answer;
  readonly #log: Logger;
  readonly #pairs: Pair[] = [];
  readonly #connections = new Set<Socket>();
  readonly #isOwnPort: IsOwnPort;
  #udpQueries = 0;
  #looped = false;

  constructor(answer: Answer, isOwnPort: IsOwnPort, log: Logger) {
    this.#answer = answer;
    this.#isOwnPort = isOwnPort;
    this.#log = log;
  }

  /**
   * Binds UDP and TCP of each address, all or none. Port 0 is one free number, the same for all that ask so: a redirect
   * to a port means that port of whichever loopback address the packet's family has.
   */
  async listen(wanted: readonly DnsListenAddress[]): Promise<void> {
    const mayChoose = wanted.some(({ port }) => port === 0);
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#bindAll(wanted);
        return;
      } catch (error) {
        await this.close();
        if (!mayChoose || codeOf(error) !== "EADDRINUSE" || attempt === bindAttempts) throw error;
      }
    }
  }

  get addresses(): readonly DnsAddress[] {
    return this.#pairs.map((pair) => pair.bound);
  }

  async close(): Promise<void> {
    for (const socket of this.#connections) socket.destroy();
    const pairs = this.#pairs.splice(0);
    await Promise.all(pairs.flatMap(({ udp, tcp }) => [...udp.map(closeUdp), closeTcp(tcp)]));
  }

  async #bindAll(wanted: readonly DnsListenAddress[]): Promise<void> {
    let chosen = 0;
    for (const { address, port, optional } of wanted) {
      try {
        const pair = await this.#bindPair(address, port === 0 ? chosen : port);
        this.#pairs.push(pair);
        if (port === 0) chosen = pair.bound.port;
      } catch (error) {
        if (optional !== true || codeOf(error) === "EADDRINUSE") throw error;
      }
    }
  }

  async #bindPair(address: string, port: number): Promise<Pair> {
    const udp = await bindUdp(address, port).catch((error: unknown) => {
      throw bindError(address, port, error);
    });
    const bound = { address, port: udp[0].address().port };
    try {
      const tcp = await this.#bindTcp(bound);
      for (const socket of udp) {
        socket.on("message", (message, from) => this.#onDatagram(socket, message, from));
        socket.on("error", (error) => this.#log.warn("DNS socket failed", { error: String(error) }));
      }
      return { udp, tcp, bound };
    } catch (error) {
      await Promise.all(udp.map(closeUdp));
      throw bindError(address, bound.port, error);
    }
  }

  async #bindTcp({ address, port }: DnsAddress): Promise<Server> {
    const server = createServer({ noDelay: true, allowHalfOpen: true }, (socket) => this.#onConnection(socket));
    server.maxConnections = maxConnections;
    server.listen({ host: address, port, exclusive: true });
    await once(server, "listening");
    server.on("error", (error) => this.#log.warn("DNS listener failed", { error: String(error) }));
    return server;
  }

  // ---- UDP

  #onDatagram(socket: UdpSocket, message: Uint8Array, from: RemoteInfo): void {
    if (this.#udpQueries >= maxUdpQueries || from.port === 0) return;
    if (this.#isOwnPort(from.port, "udp")) {
      this.#onOwnQuery(from);
      return;
    }
    this.#udpQueries++;
    void this.#safely(message, "udp").then((reply) => {
      this.#udpQueries--;
      if (reply === undefined) return;
      try {
        socket.send(reply, from.port, from.address, () => undefined);
      } catch {
        // The socket was closed while the answer was under way.
      }
    });
  }

  /** A forwarded query that the hook turned back to us would go round for ever. */
  #onOwnQuery(from: Pick<RemoteInfo, "address" | "port">): void {
    if (!this.#looped)
      this.#log.error("a forwarded DNS query came back: the hook does not let our ports pass", { ...from });
    this.#looped = true;
  }

  // ---- TCP

  #onConnection(socket: Socket): void {
    const { remoteAddress: address = "", remotePort: port = 0 } = socket;
    if (this.#isOwnPort(port, "tcp")) {
      this.#onOwnQuery({ address, port });
      socket.resetAndDestroy();
      return;
    }
    this.#connections.add(socket);
    const frames = new DnsFrames();
    let pending = 0;
    let ended = false;
    const endWhenAnswered = (): void => {
      if (ended && pending === 0) socket.end();
    };
    socket.setTimeout(idleMs, () => socket.destroy());
    socket.on("error", () => undefined); // 'close' follows
    socket.on("close", () => this.#connections.delete(socket));
    socket.on("end", () => {
      ended = true;
      endWhenAnswered();
    });
    socket.on("data", (bytes: Buffer) => {
      for (const message of frames.push(bytes)) {
        pending++;
        void this.#safely(message, "tcp").then((reply) => {
          pending--;
          if (reply !== undefined && socket.writable) socket.write(frameMessage(reply));
          if (pending < maxQueriesPerConnection && socket.writableLength === 0) socket.resume();
          endWhenAnswered();
        });
      }
      if (pending >= maxQueriesPerConnection || socket.writableNeedDrain) socket.pause();
    });
    socket.on("drain", () => socket.resume());
  }

  /** A fault in answering costs that answer only. */
  async #safely(message: Uint8Array, transport: DnsTransport): Promise<Uint8Array | undefined> {
    try {
      return await this.#answer(message, transport);
    } catch (error) {
      this.#log.error("a DNS query could not be answered", { error: String(error) });
      return undefined;
    }
  }
}

/** Several sockets on one port that nobody else has: sharing is tried only after having it alone. */
async function bindUdp(address: string, port: number): Promise<[UdpSocket, ...UdpSocket[]]> {
  const alone = await bindSocket(address, port, false);
  const bound = alone.address().port;
  await closeUdp(alone);
  const sockets: [UdpSocket, ...UdpSocket[]] = [await bindSocket(address, bound, true)];
  try {
    while (sockets.length < udpSockets) sockets.push(await bindSocket(address, bound, true));
    return sockets;
  } catch (error) {
    await Promise.all(sockets.map(closeUdp));
    throw error;
  }
}

async function bindSocket(address: string, port: number, reusePort: boolean): Promise<UdpSocket> {
  const type = address.includes(":") ? "udp6" : "udp4";
  const socket = createSocket({ type, recvBufferSize: receiveBufferBytes, reusePort });
  try {
    socket.bind({ address, port, exclusive: true });
    await once(socket, "listening");
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** The system's code of a failed bind. */
function codeOf(error: unknown): string | undefined {
  return isAppError(error) ? (error.cause as NodeJS.ErrnoException).code : undefined;
}

function closeUdp(socket: UdpSocket): Promise<void> {
  return new Promise((resolve) => socket.close(() => resolve()));
}
function closeTcp(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

function bindError(address: string, port: number, cause: unknown): AppError {
  return new AppError("dns_hook_failed", `cannot listen for DNS queries on ${address} port ${port}`, {
    cause,
    hint: "find out who has the port with ss -lunp and stop it, or set another address",
  });
}
