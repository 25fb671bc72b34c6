// Our listener on the device's address: takes the connections that the redirect released, finds each one's stream by
// its peer's port, and joins the two. Whoever else connects is reset at once.
// @from daemon/outbound/tcp-redirect.ts
import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { OutboundStats } from "./stats.ts";
import type { TcpFlow } from "./tcp-flow.ts";
import type { TcpRedirect } from "./tcp-redirect.ts";

/** chosen: handshakes that the kernel may complete before we take them; the kernel caps it at somaxconn. */
const backlog = 4096;
/** chosen: an IPv6 address is tentative at first, and the helper may be a moment behind. */
const bindRetryMs = 100;
const bindAttempts = 30;

export interface TcpAcceptOptions {
  readonly address: string;
  /** A socket that is bound already; taken over. */
  readonly listener?: number | undefined;
  readonly redirect: Pick<TcpRedirect, "claim" | "ended">;
  readonly stats: OutboundStats;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export class TcpAccept {
  readonly #options: TcpAcceptOptions;
  readonly #server: Server;

  private constructor(options: TcpAcceptOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#onConnection(socket));
    this.#server.on("error", (error) => options.log.warn("outbound listener failed", { error: String(error) }));
  }

  /** Listens on a free port of the address. */
  static async listen(options: TcpAcceptOptions): Promise<TcpAccept> {
    for (let attempt = 1; ; attempt++) {
      const accept = new TcpAccept(options);
      try {
        await accept.#bind();
        return accept;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EADDRNOTAVAIL" || attempt === bindAttempts) {
          throw new AppError("tun_unavailable", `cannot listen on the device's address ${options.address}`, {
            cause: error,
          });
        }
        await options.clock.sleep(bindRetryMs, options.signal);
      }
    }
  }

  get port(): number {
    const address = this.#server.address();
    return address !== null && typeof address === "object" ? address.port : 0;
  }

  /** Takes no more connections; those that stand are their flows' business. */
  close(): void {
    this.#server.close();
  }

  #bind(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      const { address: host, listener: fd } = this.#options;
      this.#server.listen(fd === undefined ? { host, port: 0, backlog } : { fd, backlog }, () => {
        this.#server.off("error", reject);
        resolve();
      });
    });
  }

  #onConnection(socket: Socket): void {
    const { redirect, stats } = this.#options;
    // A reset before anybody listens must end the connection, not the process.
    socket.on("error", () => undefined);
    const flow = redirect.claim(socket.remoteAddress, socket.remotePort);
    const stream = flow?.stream;
    if (flow === undefined || stream === undefined) {
      stats.tcpStrangers++;
      socket.resetAndDestroy();
      return;
    }
    flow.cut = () => socket.resetAndDestroy();
    socket.once("close", () => redirect.ended(flow, socket.readableEnded && socket.writableFinished));
    this.#join(flow, socket, stream);
  }

  #join(flow: TcpFlow, socket: Socket, stream: Duplex): void {
    const { log } = this.#options;
    if (stream.destroyed) {
      socket.resetAndDestroy();
      return;
    }
    void joinDuplex(socket, stream).closed.then((error) => {
      if (error === undefined) return;
      const target = `${flow.target.address}:${flow.target.port}`;
      log.debug("outbound connection ended by an error", { target, error: error.message });
    });
  }
}
