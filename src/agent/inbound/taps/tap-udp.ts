// Copies of the datagrams of one port for its wiretaps: a flow for each caller's address and wiretap, beside the flow
// that has the datagrams. Nothing waits but for a flow to be opened; what there is no room for is dropped and counted.
// @from agent/inbound/udp/capture-udp.ts
// @to agent/inbound/open-stream.ts
import type { RemoteInfo } from "node:dgram";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { sameIntercept } from "#agent/served.ts";
import type { ServedIntercepts, Taken } from "#agent/served.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { openInbound } from "#agent/inbound/open-stream.ts";
import { plainAddress } from "#agent/inbound/app-addresses.ts";

/** chosen: flows of one port, of all wiretaps. */
const maxFlows = 1024;
/** chosen: bytes that wait for a flow to be opened. */
const maxWaitingBytes = 64 * 1024;
/** chosen: a laptop that did not take a flow is asked again after this. */
const refusedMs = 2000;
const tooSlow = "the laptop did not keep up";

export interface UdpTapsOptions {
  readonly port: AgentPort;
  readonly served: ServedIntercepts;
  readonly podName: string;
  readonly clock: Clock;
}

interface Flow {
  readonly tap: Taken;
  readonly gone: AbortController;
  stream: TunnelStream | undefined;
  waiting: Uint8Array[];
  waitingBytes: number;
  lastMs: number;
  /** The laptop did not take it, and is not asked again before. */
  againMs: number | undefined;
}

export class UdpTaps implements Disposable {
  readonly #options: UdpTapsOptions;
  /** By the wiretap's id and the caller's address. */
  readonly #flows = new Map<string, Flow>();

  constructor(options: UdpTapsOptions) {
    this.#options = options;
    options.served.onChange(() => {
      const current = options.served.tapsOf(options.port);
      for (const [key, { tap }] of this.#flows) if (!current.some((one) => sameIntercept(tap, one))) this.#drop(key);
    });
  }

  [Symbol.dispose](): void {
    for (const key of this.#flows.keys()) this.#drop(key);
  }

  copy(datagram: Uint8Array, caller: RemoteInfo): void {
    const nowMs = this.#options.clock.now();
    for (const tap of this.#options.served.tapsOf(this.#options.port)) {
      const key = `${tap.interceptId} ${caller.address} ${caller.port}`;
      const known = this.#flows.get(key);
      const flow = known === undefined || isOver(known, nowMs) ? this.#start(key, tap, caller) : known;
      if (flow === undefined) tap.opener.countCopy(tap.interceptId, tooSlow);
      else send(flow, datagram, nowMs);
    }
  }

  /** Ends flows that are silent for so long. */
  sweep(idleMs: number): void {
    const nowMs = this.#options.clock.now();
    for (const [key, { lastMs }] of this.#flows) if (nowMs - lastMs >= idleMs) this.#drop(key);
  }

  /** Undefined when there are too many. */
  #start(key: string, tap: Taken, caller: RemoteInfo): Flow | undefined {
    this.#drop(key);
    if (this.#flows.size >= maxFlows) return undefined;
    const flow: Flow = {
      tap,
      gone: new AbortController(),
      stream: undefined,
      waiting: [],
      waitingBytes: 0,
      lastMs: 0,
      againMs: undefined,
    };
    this.#flows.set(key, flow);
    void this.#open(flow, caller);
    return flow;
  }

  /** Never rejects. */
  async #open(flow: Flow, caller: RemoteInfo): Promise<void> {
    const { port, podName, clock } = this.#options;
    const { tap, gone } = flow;
    const source = { address: plainAddress(caller.address), port: caller.port };
    const request = { protocol: "udp", containerPort: port.containerPort, source, podName } as const;
    try {
      const stream = await openInbound({ taken: tap, request, clock, signal: gone.signal });
      stream.on("error", () => undefined); // 'close' follows
      stream.once("close", () => (flow.againMs = clock.now() + refusedMs));
      stream.onDatagram(() => undefined); // the application answers
      if (gone.signal.aborted) stream.destroy();
      flow.stream = stream;
      for (const datagram of flow.waiting) stream.sendDatagram(datagram);
      for (const _ of flow.waiting) tap.opener.countCopy(tap.interceptId);
    } catch {
      flow.againMs = clock.now() + refusedMs; // a refusal has been counted
    }
    flow.waiting = [];
    flow.waitingBytes = 0;
  }

  #drop(key: string): void {
    const flow = this.#flows.get(key);
    if (flow === undefined) return;
    this.#flows.delete(key);
    flow.gone.abort(new AppError("cancelled", "the flow has ended"));
    flow.stream?.destroy();
  }
}

function isOver({ againMs }: Flow, nowMs: number): boolean {
  return againMs !== undefined && againMs <= nowMs;
}

function send(flow: Flow, datagram: Uint8Array, nowMs: number): void {
  const { tap, stream } = flow;
  flow.lastMs = nowMs;
  if (flow.againMs !== undefined) return;
  if (stream !== undefined) {
    tap.opener.countCopy(tap.interceptId, stream.sendDatagram(datagram) ? undefined : tooSlow);
  } else if (flow.waitingBytes + datagram.length <= maxWaitingBytes) {
    flow.waiting.push(datagram);
    flow.waitingBytes += datagram.length;
  } else {
    tap.opener.countCopy(tap.interceptId, tooSlow);
  }
}
