// What is not ours: to the host's own nameservers and back, byte for byte but for the id. Everything leaves from a few
// ports bound in advance, so that the hook which sends the host's queries to us can let exactly these pass; UDP from
// sockets kept open, TCP from the same port numbers.
// @from daemon/dns/resolve.ts
// @to daemon/dns/forward-tcp.ts
import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { once } from "node:events";
import { randomInt } from "node:crypto";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { dnsRcodes, rcodeOf, readQuestion } from "#packet/dns-message.ts";
import { TcpForwarder } from "./forward-tcp.ts";
import { answersQuestion, idOf, isFrom, isIpv6, withId, type Upstream } from "./upstream.ts";

/** chosen: enough that ids and ports are hard to guess together, few enough for one nft set. */
export const sourcePortCount = 16;
/** chosen: the next nameserver is asked after this; the first may still answer. */
const nextAttemptMs = 1500;
/** chosen: each nameserver is asked this often over UDP. */
const rounds = 2;
/** chosen: slow nameservers are waited for (trap 4); programs give up after 5–10 s. */
const totalMs = 9000;
/** chosen: queries under way. */
const maxPending = 8192;
/** chosen: receive buffer, so that a burst of answers survives a busy moment. */
const receiveBufferBytes = 4 * 1024 * 1024;

interface Lane {
  readonly socket: Socket;
  readonly port: number;
  readonly waiting: Map<number, Attempt>;
}
interface Attempt {
  readonly upstream: Upstream;
  readonly query: Query;
}
interface Query {
  readonly message: Uint8Array;
  readonly upstreams: readonly Upstream[];
  readonly attempts: { readonly lane: Lane; readonly id: number }[];
  readonly timers: Timer[];
  /** Answers that mean "not me"; the last is passed on when nobody does better. */
  failure: Uint8Array | undefined;
  refusals: number;
  /** Refusals, and attempts that could not be sent. */
  failures: number;
  sent: number;
  readonly settle: (reply: Uint8Array | undefined) => void;
}

export class Forwarder {
  readonly #clock: Clock;
  readonly #tcp: TcpForwarder;
  readonly #lanes4: readonly Lane[];
  readonly #lanes6: readonly Lane[];
  readonly #pending = new Set<Query>();
  #upstreams: readonly Upstream[];
  #behind: readonly Upstream[] = [];
  /** Questions that are under way to `upstreams`, while there is somebody behind them. */
  readonly #asked = new Set<string>();

  private constructor(clock: Clock, upstreams: readonly Upstream[], lanes: readonly [Lane[], Lane[]]) {
    this.#clock = clock;
    this.#upstreams = upstreams;
    [this.#lanes4, this.#lanes6] = lanes;
    this.#tcp = new TcpForwarder(clock, this.sourcePorts);
    for (const lane of [...this.#lanes4, ...this.#lanes6]) {
      lane.socket.on("message", (reply, from) => this.#onReply(lane, reply, from));
      lane.socket.on("error", () => undefined); // an ICMP error is no answer; the next attempt follows
    }
  }

  /** Binds the ports; the same numbers serve both families. */
  static async start(clock: Clock, upstreams: readonly Upstream[]): Promise<Forwarder> {
    const lanes: [Lane[], Lane[]] = [[], []];
    try {
      while (lanes[0].length < sourcePortCount) lanes[0].push(await bindLane("udp4", 0));
      // A host without IPv6 has no IPv6 nameservers either.
      for (const { port } of lanes[0]) {
        const lane = await bindLane("udp6", port).catch(() => undefined);
        if (lane !== undefined) lanes[1].push(lane);
      }
    } catch (error) {
      for (const lane of lanes.flat()) lane.socket.close();
      throw new AppError("dns_hook_failed", "cannot bind the ports for forwarding DNS queries", { cause: error });
    }
    return new Forwarder(clock, upstreams, lanes);
  }

  get sourcePorts(): readonly number[] {
    return this.#lanes4.map((lane) => lane.port);
  }
  /** Whether a query from this port is one of ours. UDP ports are held for good, TCP ports only while a query is out. */
  isOwnPort(port: number, transport: "udp" | "tcp"): boolean {
    return transport === "tcp" ? this.#tcp.isUsing(port) : this.sourcePorts.includes(port);
  }
  /** Another network, other nameservers. Whoever is `behind` gets the questions that the others ask us in turn. */
  setUpstreams(upstreams: readonly Upstream[], behind: readonly Upstream[] = []): void {
    this.#upstreams = upstreams;
    this.#behind = behind;
  }

  /** The reply under the query's id; undefined when no nameserver answered at all. Never rejects. */
  async forward(message: Uint8Array, transport: "udp" | "tcp"): Promise<Uint8Array | undefined> {
    const question = this.#behind.length === 0 ? undefined : readQuestion(message);
    if (question === undefined) return this.#ask(message, transport, this.#upstreams);
    const key = `${question.name} ${question.type} ${question.class}`;
    if (this.#asked.has(key)) return this.#ask(message, transport, this.#behind);
    this.#asked.add(key);
    try {
      return await this.#ask(message, transport, this.#upstreams);
    } finally {
      this.#asked.delete(key);
    }
  }

  #ask(message: Uint8Array, transport: "udp" | "tcp", upstreams: readonly Upstream[]): Promise<Uint8Array | undefined> {
    if (transport === "tcp") return this.#tcp.forward(message, upstreams);
    if (upstreams.length === 0 || this.#pending.size >= maxPending) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const query: Query = {
        message: Uint8Array.from(message),
        upstreams,
        attempts: [],
        timers: [],
        failure: undefined,
        refusals: 0,
        failures: 0,
        sent: 0,
        settle: (reply) => {
          this.#forget(query);
          resolve(reply);
        },
      };
      this.#pending.add(query);
      query.timers.push(this.#clock.after(totalMs, () => query.settle(query.failure)));
      this.#attempt(query);
    });
  }

  async close(): Promise<void> {
    for (const query of this.#pending) query.settle(undefined);
    this.#tcp.close();
    const lanes = [...this.#lanes4, ...this.#lanes6];
    await Promise.all(lanes.map((lane) => new Promise<void>((resolve) => lane.socket.close(() => resolve()))));
  }

  /** Asks the next nameserver in turn, and sets the time for the one after it. */
  #attempt(query: Query): void {
    const { upstreams } = query;
    const upstream = upstreams[query.sent % upstreams.length];
    if (upstream === undefined || query.sent >= upstreams.length * rounds) return;
    query.sent++;
    const lanes = isIpv6(upstream) ? this.#lanes6 : this.#lanes4;
    const lane = lanes[lanes.length === 0 ? 0 : randomInt(lanes.length)];
    const id = lane === undefined ? undefined : freeId(lane);
    if (lane !== undefined && id !== undefined) {
      lane.waiting.set(id, { upstream, query });
      query.attempts.push({ lane, id });
      lane.socket.send(withId(query.message, id), upstream.port, upstream.address, (error) => {
        if (error !== null) this.#onSendError(query);
      });
    }
    query.timers.push(this.#clock.after(nextAttemptMs, () => this.#attempt(query)));
  }

  /** No way to that nameserver (no network, no IPv6): the next one need not wait for it. */
  #onSendError(query: Query): void {
    if (!this.#pending.has(query)) return;
    query.failures++;
    if (query.failures === query.sent) this.#attempt(query);
    if (query.failures >= query.upstreams.length * rounds) query.settle(query.failure);
  }

  #onReply(lane: Lane, reply: Uint8Array, from: RemoteInfo): void {
    const id = idOf(reply);
    const attempt = lane.waiting.get(id);
    if (attempt === undefined || !isFrom(attempt.upstream, from.address, from.port)) return;
    const { query } = attempt;
    if (!answersQuestion(query.message, reply)) return;
    lane.waiting.delete(id);
    const answer = withId(reply, idOf(query.message));
    const rcode = rcodeOf(reply);
    if (rcode !== dnsRcodes.servFail && rcode !== dnsRcodes.refused) {
      query.settle(answer);
      return;
    }
    // This one cannot; another may. Its own words are passed on only when all have said so.
    query.failure = answer;
    query.failures++;
    query.refusals++;
    if (query.refusals >= query.upstreams.length) query.settle(answer);
    else if (query.failures === query.sent) this.#attempt(query);
  }

  #forget(query: Query): void {
    this.#pending.delete(query);
    for (const timer of query.timers) timer[Symbol.dispose]();
    for (const { lane, id } of query.attempts) {
      if (lane.waiting.get(id)?.query === query) lane.waiting.delete(id);
    }
  }
}

async function bindLane(type: "udp4" | "udp6", port: number): Promise<Lane> {
  const socket = createSocket({ type, ipv6Only: type === "udp6", recvBufferSize: receiveBufferBytes });
  try {
    socket.bind({ port, exclusive: true });
    await once(socket, "listening");
  } catch (error) {
    socket.close();
    throw error;
  }
  return { socket, port: socket.address().port, waiting: new Map() };
}

function freeId(lane: Lane): number | undefined {
  for (let attempt = 0; attempt < 16; attempt++) {
    const id = randomInt(0x10000);
    if (!lane.waiting.has(id)) return id;
  }
  return undefined;
}
