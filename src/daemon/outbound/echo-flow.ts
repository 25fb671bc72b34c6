// ICMP echo: one stream for each program's identifier and target. Nobody here answers for somebody else: a reply is
// written when the cluster's end has got one, and an error when it says why there is none.
// @from daemon/outbound/icmp.ts
// @to daemon/outbound/open-stream.ts
import { AppError, toAppError, type ErrorCode } from "#base/error.ts";
import { formatAddress } from "#packet/address.ts";
import { buildEcho, readEcho, type Echo } from "#packet/icmp-echo.ts";
import type { IcmpErrorReason } from "#packet/icmp.ts";
import { PacketView } from "#packet/packet-view.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { maxDatagramBytes } from "#wire/limits.ts";
import type { Endpoint } from "#wire/open.ts";
import type { DeviceWriter } from "./device-writer.ts";
import type { OutboundStats } from "./stats.ts";
import { icmpAnswers } from "./udp-flow.ts";

/** chosen: of both families; further ones wait for one that ends. */
export const maxEchoFlows = 256;
/** chosen, seconds without a request or a reply. */
const idleLimit = 30;
/** chosen: requests that may wait for the far end's answer, a flow. */
const maxQueued = 4;
/** chosen, seconds: a refused target is not asked again for each request. */
const refusedLimit = 1;
/** protocol: a datagram of the stream is the sequence number, then the payload (PROTOCOL §5.5). */
const sequenceBytes = 2;

interface EchoFlow {
  readonly key: string;
  readonly abort: AbortController;
  readonly queue: Uint8Array[];
  /** The last request, without its payload: what an error is about. */
  last: Echo;
  stream: TunnelStream | undefined;
  refusal: { readonly answer: IcmpErrorReason | undefined; readonly tick: number } | undefined;
  lastTick: number;
}

export interface EchoFlowsOptions {
  readonly writer: DeviceWriter;
  readonly stats: OutboundStats;
  readonly open: (target: Endpoint, signal: AbortSignal) => Promise<TunnelStream>;
}

const nothing = new Uint8Array(0);

export class EchoFlows {
  readonly #options: EchoFlowsOptions;
  readonly #flows = new Map<string, EchoFlow>();
  readonly #own = new PacketView();
  #tick = 0;
  #closed = false;

  constructor(options: EchoFlowsOptions) {
    this.#options = options;
  }

  /** A whole echo request from the device. */
  handle(view: PacketView): void {
    const { stats } = this.#options;
    stats.echoRequests++;
    const request = readEcho(view);
    const key = `${formatAddress(request.source)} ${formatAddress(request.destination)} ${request.identifier}`;
    const flow = this.#flows.get(key) ?? this.#create(key, request);
    if (flow === undefined || request.payload.length > maxDatagramBytes - sequenceBytes) {
      stats.echoDropped++;
      return;
    }
    flow.last = { ...request, payload: nothing };
    flow.lastTick = this.#tick;
    const datagram = encodeEcho(request);
    if (flow.refusal !== undefined) this.#tell(flow, flow.refusal.answer);
    else if (flow.stream !== undefined) flow.stream.sendDatagram(datagram);
    else if (flow.queue.length < maxQueued) flow.queue.push(datagram);
    else stats.echoDropped++;
  }

  /** Once a second. */
  tick(): void {
    this.#tick++;
    for (const flow of this.#flows.values()) {
      const isOver =
        flow.refusal === undefined
          ? this.#tick - flow.lastTick > idleLimit
          : this.#tick - flow.refusal.tick > refusedLimit;
      if (isOver) this.#remove(flow);
    }
  }

  close(): void {
    this.#closed = true;
    for (const flow of this.#flows.values()) this.#remove(flow);
  }

  #create(key: string, request: Echo): EchoFlow | undefined {
    if (this.#closed || this.#flows.size >= maxEchoFlows) return undefined;
    const flow: EchoFlow = {
      key,
      abort: new AbortController(),
      queue: [],
      last: { ...request, payload: nothing },
      stream: undefined,
      refusal: undefined,
      lastTick: this.#tick,
    };
    this.#flows.set(key, flow);
    this.#options.stats.echoFlows++;
    void this.#openFor(flow);
    return flow;
  }

  async #openFor(flow: EchoFlow): Promise<void> {
    try {
      const target = { address: formatAddress(flow.last.destination), port: 0 };
      const stream = await this.#options.open(target, flow.abort.signal);
      stream.on("error", (error: unknown) => this.#refuse(flow, toAppError(error).code));
      stream.on("end", () => stream.destroy());
      stream.on("close", () => {
        if (flow.refusal === undefined) this.#remove(flow);
      });
      if (flow.abort.signal.aborted) {
        stream.destroy();
        return;
      }
      flow.stream = stream;
      stream.onDatagram((datagram) => this.#answer(flow, datagram));
      for (const waiting of flow.queue.splice(0)) stream.sendDatagram(waiting);
    } catch (error) {
      this.#refuse(flow, toAppError(error).code);
    }
  }

  #answer(flow: EchoFlow, datagram: Uint8Array): void {
    if (datagram.length < sequenceBytes) return;
    const { version, source, destination, identifier } = flow.last;
    const sequence = ((datagram[0] as number) << 8) | (datagram[1] as number);
    const reply = { version, source: destination, destination: source, identifier, sequence };
    flow.lastTick = this.#tick;
    this.#options.stats.echoReplies++;
    this.#options.writer.write(buildEcho("reply", { ...reply, payload: datagram.subarray(sequenceBytes) }));
  }

  /** Tells the program, and lets the flow answer for itself for a second. */
  #refuse(flow: EchoFlow, code: ErrorCode): void {
    if (flow.abort.signal.aborted || flow.refusal !== undefined) return;
    // A manager of an older version, and a pod that may not send such, ask nobody: said like a filter on the way.
    const answer = code === "unsupported" ? "prohibited" : icmpAnswers[code];
    flow.stream = undefined;
    flow.queue.length = 0;
    flow.refusal = { answer, tick: this.#tick };
    this.#tell(flow, answer);
  }

  #tell(flow: EchoFlow, answer: IcmpErrorReason | undefined): void {
    this.#options.stats.echoDropped++;
    if (answer !== undefined && this.#own.load(buildEcho("request", flow.last)) === undefined) {
      this.#options.writer.refuse(this.#own, answer);
    }
  }

  #remove(flow: EchoFlow): void {
    if (this.#flows.get(flow.key) !== flow) return; // one that came later has its place
    this.#flows.delete(flow.key);
    this.#options.stats.echoFlows--;
    flow.abort.abort(new AppError("cancelled", "the flow ended"));
    flow.stream?.destroy();
  }
}

function encodeEcho({ sequence, payload }: Echo): Uint8Array {
  const datagram = new Uint8Array(sequenceBytes + payload.length);
  datagram[0] = sequence >>> 8;
  datagram[1] = sequence & 0xff;
  datagram.set(payload, sequenceBytes);
  return datagram;
}
