// Forwarding over TCP, which clients use after a truncated answer: one connection a query, from one of the ports that
// the hook exempts. Connections end in a reset, so that none of the few ports rests in TIME_WAIT.
// @from daemon/dns/forward.ts
import { createConnection, type Socket } from "node:net";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { dnsRcodes, rcodeOf } from "#packet/dns-message.ts";
import { DnsFrames, frameMessage } from "./tcp-frames.ts";
import { answersQuestion, idOf, type Upstream } from "./upstream.ts";

/** chosen: one nameserver's time. */
const exchangeMs = 4000;
/** chosen: queries that wait for a free port. */
const maxWaiting = 256;

export class TcpForwarder {
  readonly #clock: Clock;
  readonly #freePorts: number[];
  readonly #waiting: ((port: number | undefined) => void)[] = [];
  readonly #portsInUse = new Set<number>();
  readonly #sockets = new Set<Socket>();
  #closed = false;

  constructor(clock: Clock, ports: readonly number[]) {
    this.#clock = clock;
    this.#freePorts = [...ports];
  }

  /** The first nameserver that answers; undefined when none did. */
  async forward(message: Uint8Array, upstreams: readonly Upstream[]): Promise<Uint8Array | undefined> {
    const query = Uint8Array.from(message);
    let failure: Uint8Array | undefined;
    for (const upstream of upstreams) {
      const reply = await this.#exchange(query, upstream).catch(() => undefined);
      if (reply === undefined) continue;
      const rcode = rcodeOf(reply);
      if (rcode !== dnsRcodes.servFail && rcode !== dnsRcodes.refused) return reply;
      failure = reply;
    }
    return failure;
  }

  /** Whether a connection of ours leaves from this port now. Between queries the number is anybody's. */
  isUsing(port: number): boolean {
    return this.#portsInUse.has(port);
  }

  close(): void {
    this.#closed = true;
    for (const wake of this.#waiting.splice(0)) wake(undefined);
    for (const socket of this.#sockets) socket.destroy();
  }

  async #exchange(query: Uint8Array, upstream: Upstream): Promise<Uint8Array | undefined> {
    const port = await this.#takePort();
    if (port === undefined) return undefined;
    this.#portsInUse.add(port);
    try {
      return await this.#exchangeFrom(port, query, upstream);
    } finally {
      this.#portsInUse.delete(port);
      this.#givePort(port);
    }
  }

  #exchangeFrom(localPort: number, query: Uint8Array, upstream: Upstream): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const limit = deadline(this.#clock, exchangeMs, `the nameserver ${upstream.address}`);
      const socket = createConnection({ host: upstream.address, port: upstream.port, localPort, noDelay: true });
      this.#sockets.add(socket);
      const frames = new DnsFrames();
      let reply: Uint8Array | undefined;
      limit.signal.addEventListener("abort", () => socket.destroy(limit.signal.reason as Error));
      socket.on("connect", () => socket.write(frameMessage(query)));
      socket.on("data", (bytes: Buffer) => {
        reply ??= frames.push(bytes).find((frame) => idOf(frame) === idOf(query) && answersQuestion(query, frame));
        if (reply !== undefined) socket.resetAndDestroy();
      });
      socket.on("end", () => socket.destroy());
      socket.on("error", () => undefined); // 'close' follows
      socket.on("close", () => {
        this.#sockets.delete(socket);
        limit[Symbol.dispose]();
        if (reply !== undefined) resolve(Uint8Array.from(reply));
        else reject(new Error("no answer"));
      });
    });
  }

  #takePort(): Promise<number | undefined> {
    const port = this.#freePorts.shift();
    if (port !== undefined || this.#closed || this.#waiting.length >= maxWaiting) return Promise.resolve(port);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
  #givePort(port: number): void {
    const wake = this.#waiting.shift();
    if (wake === undefined) this.#freePorts.push(port);
    else wake(port);
  }
}
