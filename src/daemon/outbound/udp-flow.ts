// UDP: one stream for each 4-tuple, datagrams both ways. Datagrams that come before the far end has answered wait in a
// small queue; a refusal becomes ICMP, as from a host. A flow ends after a minute without a datagram.
// @from daemon/outbound/classify.ts
// @to daemon/outbound/open-stream.ts, daemon/private-networks/private-network.ts
import { AppError, toAppError, type ErrorCode } from "#base/error.ts";
import { formatAddress } from "#packet/address.ts";
import type { IcmpErrorReason, QuotedUdp } from "#packet/icmp.ts";
import { PacketView } from "#packet/packet-view.ts";
import { maxUdpPayloadBytes, udpScratchBytes, writeUdpPacket, type UdpEnds } from "#packet/udp.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { maxDatagramBytes } from "#wire/limits.ts";
import type { Endpoint } from "#wire/open.ts";
import type { DeviceWriter } from "./device-writer.ts";
import { flowKeyOf, FlowTable, type TableEntry } from "./flow-table.ts";
import type { OutboundStats } from "./stats.ts";
import type { FlowReport } from "./tcp-redirect.ts";

/** chosen: flows of both families; one that was silent long makes room. */
export const maxUdpFlows = 10_000;
/** chosen: how many are looked at for the one that was silent longest. */
const evictionSample = 64;
/** chosen, seconds without a datagram either way. */
const idleLimit = 60;
/** chosen: a look-up has its answer and is over; resolvers take a new port for each. */
const idleLimitAfterDnsAnswer = 5;
const dnsPort = 53;
/** chosen: what may wait for the far end's answer, a flow. */
const maxQueuedDatagrams = 16;
const maxQueuedBytes = 256 * 1024;
/** chosen, seconds: a refused target is not asked again for each datagram. */
const refusedLimit = 1;

interface UdpFlow extends TableEntry<UdpFlow> {
  readonly program: Endpoint;
  readonly target: Endpoint;
  /** From the target to the program. */
  readonly back: UdpEnds;
  readonly abort: AbortController;
  readonly queue: Uint8Array[];
  queuedBytes: number;
  stream: TunnelStream | undefined;
  /** Set when the far end refused: what each further datagram is told. */
  refusal: { readonly answer: IcmpErrorReason | undefined; readonly tick: number } | undefined;
  lastTick: number;
  answered: boolean;
}

/** What a host would be told, where the far end says so. */
export const icmpAnswers: Partial<Record<ErrorCode, IcmpErrorReason>> = {
  refused: "port",
  peer_reset: "port",
  not_found: "host",
  unreachable: "host",
  link_lost: "host",
  unsupported: "host",
  denied: "prohibited",
};

export interface UdpFlowsOptions {
  readonly writer: DeviceWriter;
  readonly stats: OutboundStats;
  readonly open: (target: Endpoint, signal: AbortSignal) => Promise<TunnelStream>;
  readonly report: FlowReport;
}

export class UdpFlows {
  readonly #options: UdpFlowsOptions;
  readonly #flows = new FlowTable<UdpFlow>();
  readonly #scratch = new Uint8Array(udpScratchBytes);
  readonly #own = new PacketView();
  /** Goes on where the last one stopped; flows that have gone meanwhile are passed over. */
  #eviction: Iterator<UdpFlow, undefined> = this.#flows.values();
  #tick = 0;
  #closed = false;

  constructor(options: UdpFlowsOptions) {
    this.#options = options;
  }

  // ---- program → cluster

  /** A whole UDP packet from the device. */
  handle(view: PacketView): void {
    const flow = this.#flows.find(view) ?? this.#create(view);
    if (flow === undefined) return;
    flow.lastTick = this.#tick;
    const { refusal } = flow;
    if (refusal !== undefined) {
      this.#options.stats.udpDropped++;
      if (refusal.answer !== undefined) this.#options.writer.refuse(view, refusal.answer);
      return;
    }
    const payload = view.bytes.subarray(view.payloadOffset, view.end);
    if (payload.length <= maxDatagramBytes) {
      this.#send(flow, payload);
      return;
    }
    // Only IPv6 has such: the tunnel carries what IPv4 can.
    this.#options.stats.udpDropped++;
    this.#options.writer.refuse(view, "tooBig");
  }

  #create(view: PacketView): UdpFlow | undefined {
    if (this.#closed) return undefined;
    if (this.#flows.size >= maxUdpFlows) this.#evictOldest();
    const source = view.source();
    const destination = view.destination();
    const { sourcePort, destinationPort, version } = view;
    const flow: UdpFlow = {
      key: flowKeyOf(view),
      nextInBucket: undefined,
      program: { address: formatAddress(source), port: sourcePort },
      target: { address: formatAddress(destination), port: destinationPort },
      back: {
        version,
        source: destination,
        destination: source,
        sourcePort: destinationPort,
        destinationPort: sourcePort,
      },
      abort: new AbortController(),
      queue: [],
      queuedBytes: 0,
      stream: undefined,
      refusal: undefined,
      lastTick: this.#tick,
      answered: false,
    };
    this.#flows.insert(flow);
    this.#options.stats.udpFlows++;
    void this.#openFor(flow);
    return flow;
  }

  /** The payload lies in the device's buffer: what waits is copied. */
  #send(flow: UdpFlow, payload: Uint8Array): void {
    const { stats } = this.#options;
    if (flow.stream !== undefined) {
      if (!flow.stream.sendDatagram(payload.slice())) stats.udpDropped++;
      return;
    }
    if (flow.queue.length >= maxQueuedDatagrams || flow.queuedBytes + payload.length > maxQueuedBytes) {
      stats.udpDropped++;
      return;
    }
    flow.queue.push(payload.slice());
    flow.queuedBytes += payload.length;
  }

  async #openFor(flow: UdpFlow): Promise<void> {
    const { open, report, stats } = this.#options;
    const { program, target } = flow;
    try {
      const stream = await open(target, flow.abort.signal);
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
      stats.udpOpened++;
      stream.onDatagram((datagram) => this.#receive(flow, datagram));
      for (const waiting of flow.queue.splice(0)) {
        if (!stream.sendDatagram(waiting)) stats.udpDropped++;
      }
      report({ protocol: "udp", program, target, outcome: "opened" });
    } catch (error) {
      const { code } = toAppError(error);
      this.#refuse(flow, code);
      report({ protocol: "udp", program, target, outcome: code });
    }
  }

  /** Tells the program, and lets the flow answer for itself for a second. */
  #refuse(flow: UdpFlow, code: ErrorCode): void {
    if (flow.abort.signal.aborted || flow.refusal !== undefined) return;
    const { writer, stats } = this.#options;
    const answer = icmpAnswers[code];
    stats.udpRefused++;
    stats.udpDropped += flow.queue.length;
    flow.queue.length = 0;
    flow.stream = undefined;
    flow.refusal = { answer, tick: this.#tick };
    if (answer !== undefined) writer.refuse(this.#emptyDatagram(flow), answer);
  }

  /** Of the program's, to be quoted: the receiver of an error looks at the ends only. */
  #emptyDatagram({ back }: UdpFlow): PacketView {
    const ends: UdpEnds = {
      version: back.version,
      source: back.destination,
      destination: back.source,
      sourcePort: back.destinationPort,
      destinationPort: back.sourcePort,
    };
    const length = writeUdpPacket(this.#scratch, ends, new Uint8Array(0));
    this.#own.load(this.#scratch.subarray(0, length));
    return this.#own;
  }

  // ---- cluster → program

  #receive(flow: UdpFlow, datagram: Uint8Array): void {
    const { writer, stats } = this.#options;
    if (datagram.length > maxUdpPayloadBytes(flow.back.version)) {
      stats.udpDropped++;
      return;
    }
    flow.lastTick = this.#tick;
    flow.answered = true;
    const length = writeUdpPacket(this.#scratch, flow.back, datagram);
    writer.write(this.#scratch.subarray(0, length));
  }

  // ---- ends

  /** The program's kernel says that nobody has the port any more: the flow's answers have no reader. */
  programGone(quote: QuotedUdp): void {
    const size = quote.source.length;
    const key = new Uint8Array(size * 2 + 4);
    key.set(quote.destination, 0);
    key.set(quote.source, size);
    new DataView(key.buffer).setUint16(size * 2, quote.destinationPort);
    new DataView(key.buffer).setUint16(size * 2 + 2, quote.sourcePort);
    const flow = this.#flows.findKey(key);
    if (flow !== undefined) this.#remove(flow);
  }

  /** Once a second. */
  tick(): void {
    this.#tick++;
    for (const flow of this.#flows.values()) {
      if (this.#expired(flow)) this.#remove(flow);
    }
  }

  close(): void {
    this.#closed = true;
    for (const flow of this.#flows.values()) this.#remove(flow);
  }

  #expired(flow: UdpFlow): boolean {
    if (flow.refusal !== undefined) return this.#tick - flow.refusal.tick > refusedLimit;
    const limit = flow.answered && flow.target.port === dnsPort ? idleLimitAfterDnsAnswer : idleLimit;
    return this.#tick - flow.lastTick > limit;
  }

  /** Of a few at a time, round and round: a program that asks everybody must not cost a look at all for each. */
  #evictOldest(): void {
    let oldest: UdpFlow | undefined;
    for (let looked = 0; looked < evictionSample; looked++) {
      const { value: flow } = this.#eviction.next();
      if (flow === undefined) this.#eviction = this.#flows.values();
      else if (oldest === undefined || flow.lastTick < oldest.lastTick) oldest = flow;
    }
    if (oldest !== undefined) this.#remove(oldest);
  }

  #remove(flow: UdpFlow): void {
    if (!this.#flows.remove(flow)) return;
    this.#options.stats.udpFlows--;
    const reason = new AppError("cancelled", "the flow ended");
    flow.abort.abort(reason);
    flow.stream?.destroy();
  }
}
