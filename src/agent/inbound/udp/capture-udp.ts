// Datagrams to a taken-over UDP port, one flow for each caller's address: to the laptop when the port has an active
// intercept, else to the application. A flow has no connection to keep, so each change of what is intercepted lets the
// flows of this port choose anew with their next datagram, while answers that are on their way still arrive. What the
// laptop refuses goes to the application, unless its callers are to see the failure.
// @to agent/inbound/udp/pass-udp.ts, agent/inbound/taps/tap-udp.ts, agent/inbound/udp/unanswered.ts
import { createSocket } from "node:dgram";
import type { RemoteInfo, Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import type { Endpoint } from "#wire/open.ts";
import type { Decisions, Outcome } from "#agent/decisions.ts";
import { sameIntercept } from "#agent/served.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import { AppAddresses, plainAddress } from "#agent/inbound/app-addresses.ts";
import { openInbound } from "#agent/inbound/open-stream.ts";
import { PassedUdp, maxSendQueueBytes } from "./pass-udp.ts";
import { UdpTaps } from "#agent/inbound/taps/tap-udp.ts";
import { HeldDatagrams, Unanswered } from "./unanswered.ts";

/** chosen: a flow that is silent both ways for this long ends. */
const idleMs = 60_000;
const sweepMs = 10_000;
/** chosen: flows of one port; the longest silent one makes room. */
const maxFlows = 4096;
/** chosen: an answer, or a refusal, comes within this time, or is of another datagram. */
const answerMs = 2000;
/** chosen: for so long after a refusal of the laptop, or of its process, flows go to the application at once; then it is asked again. */
const refusedMs = 2000;
/** chosen: … and after so many times as long as it took to hear nothing, because a caller's datagrams wait for that. */
const restFactor = 4;

export interface UdpCaptureOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly podName: string;
  readonly podIps: readonly string[];
  readonly decisions: Decisions;
  readonly clock: Clock;
  readonly log: Logger;
}

const refusedText = "no process listens on the laptop";

/** Where a flow's datagrams go once that is decided. */
interface FlowEnd {
  send(datagram: Uint8Array): void;
  close(): void;
}

interface Flow {
  readonly key: string;
  readonly caller: RemoteInfo;
  readonly taken: Taken | undefined;
  readonly gone: AbortController;
  readonly outcome: Outcome;
  end: FlowEnd | undefined;
  /** Not yet sent to anybody; once somebody has the flow, sent and not answered. */
  readonly unanswered: Unanswered;
  lastMs: number;
  /** When the laptop is asked again, whose process has refused, or which did not answer. */
  againMs: number;
}

export class UdpCapture implements AsyncDisposable {
  readonly #options: UdpCaptureOptions;
  readonly #socket: Socket;
  readonly #flows = new Map<string, Flow>();
  /** Those that get no datagrams any more, until their last answers have come. */
  readonly #ending = new Map<Flow, Timer>();
  readonly #held = new HeldDatagrams();
  readonly #taps: UdpTaps;
  readonly #sweeper: Timer;
  readonly #addresses: AppAddresses;
  /** The laptop has not taken a flow, and why, so that others need not try. */
  #refused: { readonly taken: Taken; readonly untilMs: number; readonly reason: string } | undefined;

  private constructor(options: UdpCaptureOptions, socket: Socket) {
    this.#options = options;
    this.#socket = socket;
    this.#taps = new UdpTaps(options);
    this.#addresses = new AppAddresses(options.podIps, options.clock);
    this.#sweeper = options.clock.every(sweepMs, () => this.#sweep()).unref();
    options.served.onChange(() => this.#chooseAnew());
    socket.on("message", (datagram, caller) => this.#receive(datagram, caller));
    socket.on("error", (error) => options.log.debug("udp socket", { error: error.message }));
  }

  static async listen(options: UdpCaptureOptions): Promise<UdpCapture> {
    return new UdpCapture(options, await bindAnywhere(options.port.agentPort));
  }

  get port(): number {
    return this.#socket.address().port;
  }
  get flowCount(): number {
    return this.#flows.size;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#sweeper[Symbol.dispose]();
    this.#taps[Symbol.dispose]();
    for (const flow of [...this.#flows.values(), ...this.#ending.keys()]) this.#drop(flow);
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }

  #receive(datagram: Uint8Array, caller: RemoteInfo): void {
    const key = `${caller.address} ${caller.port}`;
    const known = this.#flows.get(key);
    let flow = known !== undefined && known.againMs <= this.#options.clock.now() ? this.#anew(known) : known;
    if (flow === undefined) {
      flow = this.#start(key, caller);
    } else {
      this.#flows.delete(key); // moves it to the young end
      this.#flows.set(key, flow);
    }
    flow.lastMs = this.#options.clock.now();
    pass(flow, datagram);
    this.#taps.copy(datagram, caller);
  }

  #start(key: string, caller: RemoteInfo, first: readonly Uint8Array[] = []): Flow {
    if (this.#flows.size >= maxFlows) {
      const oldest = this.#flows.values().next().value;
      if (oldest !== undefined) this.#drop(oldest);
    }
    const { port, served, decisions, clock } = this.#options;
    const taken = served.whole(port);
    const source = plainAddress(caller.address);
    const { containerPort } = port;
    const outcome = decisions.add({ containerPort, source, asked: served.of(port), taken, isUdp: true });
    const unanswered = new Unanswered(clock, this.#held);
    for (const datagram of first) unanswered.add(datagram);
    const lastMs = clock.now();
    const flow: Flow = {
      key,
      caller,
      taken,
      gone: new AbortController(),
      outcome,
      end: undefined,
      unanswered,
      lastMs,
      againMs: this.#isRefused(taken) ? (this.#refused?.untilMs ?? 0) : Number.POSITIVE_INFINITY,
    };
    this.#flows.set(key, flow);
    void this.#decide(flow);
    return flow;
  }

  async #decide(flow: Flow): Promise<void> {
    try {
      const end = (await this.#toLaptop(flow)) ?? (await this.#toApplication(flow));
      if (flow.gone.signal.aborted) {
        end.close();
        return;
      }
      flow.end = end;
      for (const datagram of flow.unanswered.take()) end.send(datagram);
    } catch (error) {
      const reason = toAppError(error).message;
      flow.outcome.cut(reason);
      this.#options.log.debug("datagrams not passed", { reason });
      this.#drop(flow);
    }
  }

  async #toLaptop(flow: Flow): Promise<FlowEnd | undefined> {
    const { taken, caller, gone } = flow;
    const { port, podName, clock, log } = this.#options;
    if (taken === undefined) return undefined;
    if (flow.againMs !== Number.POSITIVE_INFINITY) {
      flow.outcome.leftToApplication(this.#refused?.reason ?? refusedText);
      return undefined;
    }
    const source: Endpoint = { address: plainAddress(caller.address), port: caller.port };
    const askedMs = clock.now();
    try {
      const request = { protocol: "udp", containerPort: port.containerPort, source, podName } as const;
      const stream = await openInbound({ taken, request, clock, signal: gone.signal });
      let refused = false;
      stream.onDatagram((datagram) => {
        flow.unanswered.forget();
        this.#answer(flow, Buffer.from(datagram));
      });
      stream.on("error", (error) => (refused = isAppError(error, "refused"))); // 'close' follows
      stream.on("end", () => this.#drop(flow));
      stream.on("close", () => {
        if (refused) this.#leaveToApplication(flow, taken);
        else this.#drop(flow);
      });
      const send = (datagram: Uint8Array): void => {
        flow.unanswered.add(datagram);
        stream.sendDatagram(datagram);
      };
      return { send, close: () => stream.destroy() };
    } catch (error) {
      gone.signal.throwIfAborted();
      if (taken.onRefused === "fail" && isAppError(error, "refused")) throw error;
      const reason = toAppError(error).message;
      // The caller may keep its port for ever, and the laptop comes to itself.
      flow.againMs = clock.now() + Math.max(refusedMs, restFactor * (clock.now() - askedMs));
      this.#refused = { taken, untilMs: clock.now() + refusedMs, reason };
      flow.outcome.leftToApplication(reason);
      log.info("datagrams left to the application", { interceptId: taken.interceptId, reason });
      return undefined;
    }
  }

  #isRefused(taken: Taken | undefined): boolean {
    if (this.#refused === undefined || this.#options.clock.now() >= this.#refused.untilMs) return false;
    return sameIntercept(this.#refused.taken, taken);
  }

  /** ICMP said that no process on the laptop has the port: what was sent there nobody has got. */
  #leaveToApplication(flow: Flow, taken: Taken): void {
    const unanswered = flow.unanswered.take(answerMs);
    flow.outcome.cut(refusedText);
    this.#drop(flow);
    taken.opener.countRefused(taken.interceptId);
    if (taken.onRefused === "fail") return;
    this.#refused = { taken, untilMs: this.#options.clock.now() + refusedMs, reason: refusedText };
    const next = this.#flows.get(flow.key); // of the same caller, begun meanwhile
    if (next !== undefined) for (const datagram of unanswered) pass(next, datagram);
    else if (unanswered.length > 0) this.#start(flow.key, flow.caller, unanswered);
  }

  async #toApplication(flow: Flow): Promise<FlowEnd> {
    const { podIps, port } = this.#options;
    const isV6 = isIPv6(plainAddress(flow.caller.address));
    return await PassedUdp.open({
      addresses: this.#addresses,
      reached: podIps.find((ip) => isIPv6(ip) === isV6) ?? podIps[0],
      containerPort: port.containerPort,
      unanswered: flow.unanswered,
      onAnswer: (datagram) => this.#answer(flow, datagram),
      onEnd: (reason) => {
        flow.outcome.cut(reason);
        this.#drop(flow);
      },
    });
  }

  #answer(flow: Flow, datagram: Uint8Array): void {
    if (flow.gone.signal.aborted) return;
    flow.lastMs = this.#options.clock.now();
    if (this.#socket.getSendQueueSize() > maxSendQueueBytes) return;
    this.#socket.send(datagram, flow.caller.port, flow.caller.address, () => undefined);
  }

  #chooseAnew(): void {
    const { port, served } = this.#options;
    const taken = served.whole(port);
    for (const flow of this.#flows.values()) {
      const isSame = flow.taken === undefined ? taken === undefined : sameIntercept(flow.taken, taken);
      if (!isSame) this.#anew(flow);
    }
  }

  /** Lets its next datagram choose; what nobody has got yet does so at once, by the flow that is returned. */
  #anew(flow: Flow): Flow | undefined {
    if (flow.end !== undefined) {
      this.#endSoon(flow);
      return undefined;
    }
    const first = flow.unanswered.take();
    this.#drop(flow);
    return this.#start(flow.key, flow.caller, first);
  }

  /** Nothing more goes this way; what was asked may still be answered, or refused. */
  #endSoon(flow: Flow): void {
    this.#flows.delete(flow.key);
    flow.outcome.answered(undefined);
    this.#ending.set(flow, this.#options.clock.after(answerMs, () => this.#drop(flow)).unref());
    if (this.#ending.size <= maxFlows) return;
    const [oldest] = this.#ending.keys();
    if (oldest !== undefined) this.#drop(oldest);
  }

  #sweep(): void {
    const now = this.#options.clock.now();
    for (const flow of this.#flows.values()) if (now - flow.lastMs >= idleMs) this.#drop(flow);
    this.#taps.sweep(idleMs);
  }

  #drop(flow: Flow): void {
    if (this.#flows.get(flow.key) === flow) this.#flows.delete(flow.key);
    this.#ending.get(flow)?.[Symbol.dispose]();
    this.#ending.delete(flow);
    flow.unanswered.forget();
    if (flow.gone.signal.aborted) return;
    flow.outcome.answered(undefined);
    flow.gone.abort(new AppError("cancelled", "the flow has ended"));
    flow.end?.close();
  }
}

function pass(flow: Flow, datagram: Uint8Array): void {
  if (flow.end !== undefined) flow.end.send(datagram);
  else flow.unanswered.add(datagram);
}

async function bindAnywhere(port: number): Promise<Socket> {
  for (const [type, address] of [
    ["udp6", "::"],
    ["udp4", "0.0.0.0"],
  ] as const) {
    const socket = createSocket({ type, recvBufferSize: 1024 * 1024 });
    try {
      socket.bind(port, address);
      await once(socket, "listening");
      return socket;
    } catch (error) {
      socket.close();
      const { code } = error as NodeJS.ErrnoException;
      if (type === "udp4" || code === "EADDRINUSE") {
        throw new AppError(
          code === "EADDRINUSE" ? "port_in_use" : "internal",
          `cannot listen on UDP port ${port}: ${code}`,
        );
      }
    }
  }
  throw new AppError("internal", `cannot listen on UDP port ${port}`);
}
