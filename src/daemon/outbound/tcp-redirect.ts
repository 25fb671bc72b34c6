// The "system stack" (DESIGN 6, 7): a program's TCP segment for the cluster is turned into one for our own listener on
// the device's address, so that the laptop's kernel does TCP on both ends and we only swap addresses:
//
//   program A:p → target T:q      ──fromProgram──▶   peer P:n → listener A:L      (written back to the device)
//   listener A:L → peer P:n       ──fromListener──▶  target T:q → program A:p     (written back to the device)
//
// The first SYN is held until the far end has really connected; n names the flow to the accepting hop.
// Invariant: a flow is in #flows and #byPort, or in neither.
// @from daemon/outbound/classify.ts
// @to daemon/outbound/open-stream.ts, daemon/private-networks/private-network.ts, daemon/outbound/tcp-accept.ts
import type { Duplex } from "node:stream";
import { AppError, toAppError, type ErrorCode } from "#base/error.ts";
import { formatAddress, sameAddress } from "#packet/address.ts";
import type { IcmpErrorReason } from "#packet/icmp.ts";
import { PacketView } from "#packet/packet-view.ts";
import { applyRewrite } from "#packet/rewrite.ts";
import { buildReset, flagsOf, isFirstSyn, sequenceOf, tcpFlags } from "#packet/tcp.ts";
import type { Endpoint } from "#wire/open.ts";
import type { FamilyAddresses } from "./addresses.ts";
import type { DeviceWriter } from "./device-writer.ts";
import { FlowTable } from "./flow-table.ts";
import { PortPool } from "./port-pool.ts";
import type { OutboundStats } from "./stats.ts";
import { TcpFlow } from "./tcp-flow.ts";

/** chosen: connections a family, held ones included. */
export const maxTcpFlows = 10_000;

/** What the outside may learn of each attempt. */
export type FlowReport = (flow: {
  readonly protocol: "tcp" | "udp";
  readonly program: Endpoint;
  readonly target: Endpoint;
  /** `opened`, or why not. */
  readonly outcome: "opened" | ErrorCode;
}) => void;

export interface TcpRedirectOptions {
  readonly own: FamilyAddresses;
  readonly writer: DeviceWriter;
  readonly stats: OutboundStats;
  /** Resolves when the far end connected; rejects with its reason. */
  readonly open: (target: Endpoint, signal: AbortSignal) => Promise<Duplex>;
  readonly report: FlowReport;
}

/** How a refusal looks to the program: as it would to a pod (DESIGN 7). Codes not listed stay silent. */
const answers: Partial<Record<ErrorCode, "reset" | IcmpErrorReason>> = {
  refused: "reset",
  peer_reset: "reset",
  not_found: "host",
  unreachable: "host",
  link_lost: "host",
  unsupported: "host",
  internal: "host",
  protocol: "host",
  denied: "prohibited",
};

export class TcpRedirect {
  readonly #options: TcpRedirectOptions;
  readonly #flows = new FlowTable<TcpFlow>();
  readonly #byPort = new Array<TcpFlow | undefined>(65_536).fill(undefined);
  readonly #ports = new PortPool();
  readonly #own = new PacketView();
  /** As a socket spells it. */
  readonly #peerText: string;
  #listenPort = 0;
  #tick = 0;
  #closed = false;
  /** Once closed: those that stood, and how many of them have had their programs told. */
  #ending: TcpFlow[] | undefined;
  #told = 0;

  constructor(options: TcpRedirectOptions) {
    this.#options = options;
    this.#peerText = formatAddress(options.own.peer);
  }

  /** Packets come only after the listener's port is known. */
  setListenPort(port: number): void {
    this.#listenPort = port;
  }
  get flowCount(): number {
    return this.#flows.size;
  }

  /** Any TCP packet from the device; changed in place. */
  handle(view: PacketView): void {
    const { own } = this.#options;
    if (view.sourcePort === this.#listenPort && sameAddress(own.address, view.bytes, view.sourceOffset)) {
      if (sameAddress(own.peer, view.bytes, view.destinationOffset)) {
        this.#fromListener(view);
        return;
      }
    }
    this.#fromProgram(view);
  }

  // ---- program → listener

  #fromProgram(view: PacketView): void {
    const flow = this.#flows.find(view);
    if (isFirstSyn(view)) {
      this.#onSyn(view, flow);
      return;
    }
    if (flow === undefined) {
      this.#answerStray(view);
      return;
    }
    if (flow.state === "held") return;
    flow.note(view, "program", this.#tick);
    applyRewrite(view, flow.toListener);
    this.#options.writer.writeView(view);
  }

  #onSyn(view: PacketView, known: TcpFlow | undefined): void {
    if (known?.initialSequence === sequenceOf(view)) {
      // The kernel asks again: absorbed while held, passed on when the listener's answer may have been lost.
      if (known.state === "held") return;
      known.note(view, "program", this.#tick);
      applyRewrite(view, known.toListener);
      this.#options.writer.writeView(view);
      return;
    }
    if (known?.state === "held") {
      // The program gave up and asks the same again from the same port: the answer under way is for it.
      known.syn = view.bytes.slice(0, view.end);
      known.initialSequence = sequenceOf(view);
      return;
    }
    if (known !== undefined) this.#discard(known);
    this.#hold(view);
  }

  #hold(view: PacketView): void {
    const { stats, own } = this.#options;
    if (this.#closed) {
      this.#options.writer.write(buildReset(view));
      return;
    }
    const natPort = this.#makeRoom() ? this.#ports.take() : undefined;
    if (natPort === undefined) {
      stats.tcpTableFull++;
      return;
    }
    const flow = new TcpFlow(view, { natPort, listenPort: this.#listenPort, tick: this.#tick, own });
    flow.initialSequence = sequenceOf(view);
    this.#flows.insert(flow);
    this.#byPort[natPort] = flow;
    stats.tcpHeld++;
    stats.tcpFlows++;
    void this.#openFor(flow);
  }

  async #openFor(flow: TcpFlow): Promise<void> {
    const { open, report, stats } = this.#options;
    const { program, target } = flow;
    try {
      const stream = await open(target, flow.abort.signal);
      stream.on("error", () => undefined); // told by "close"
      if (this.#byPort[flow.natPort] !== flow) {
        stream.destroy(new AppError("cancelled", "the program's connection ended first"));
        return;
      }
      flow.stream = stream;
      // Later its end is the joined socket's. The listener may have the connection in a while, or never.
      stream.once("close", () => {
        if (flow.state === "handshake" && this.#byPort[flow.natPort] === flow) this.#resetProgram(flow);
      });
      stats.tcpOpened++;
      this.#release(flow);
      report({ protocol: "tcp", program, target, outcome: "opened" });
    } catch (error) {
      const { code } = toAppError(error);
      this.#refuse(flow, code);
      report({ protocol: "tcp", program, target, outcome: code });
    }
  }

  /** The far end stands: the held SYN goes to the listener, and the kernel does the rest. */
  #release(flow: TcpFlow): void {
    const view = this.#own;
    if (view.load(flow.syn) !== undefined) return;
    flow.state = "handshake";
    flow.stateTick = this.#tick;
    flow.syn = new Uint8Array(0);
    flow.note(view, "program", this.#tick);
    applyRewrite(view, flow.toListener);
    this.#options.writer.writeView(view);
  }

  #refuse(flow: TcpFlow, code: ErrorCode): void {
    const { writer, stats } = this.#options;
    if (!this.#remove(flow)) return;
    const answer = answers[code];
    if (answer === undefined || this.#own.load(flow.syn) !== undefined) {
      stats.tcpSilent++;
      return;
    }
    stats.tcpRefused++;
    if (answer === "reset") writer.write(buildReset(this.#own));
    else writer.refuse(this.#own, answer);
  }

  // ---- listener → program

  #fromListener(view: PacketView): void {
    const flow = this.#byPort[view.destinationPort];
    if (flow === undefined || flow.state === "held") {
      this.#answerStray(view);
      return;
    }
    flow.note(view, "listener", this.#tick);
    applyRewrite(view, flow.toProgram);
    this.#options.writer.writeView(view);
  }

  /** A segment of a connection that is over, perhaps of an earlier daemon's: its owner learns so at once. */
  #answerStray(view: PacketView): void {
    if ((flagsOf(view) & tcpFlags.rst) !== 0) return;
    this.#options.stats.tcpStray++;
    this.#options.writer.write(buildReset(view));
  }

  // ---- for the accepting hop and the assembly

  /** The flow whose connection the listener just took, once; undefined for a stranger. */
  claim(peerAddress: string | undefined, peerPort: number | undefined): TcpFlow | undefined {
    if (peerAddress !== this.#peerText || peerPort === undefined) return undefined;
    const flow = this.#byPort[peerPort];
    if (flow?.state !== "handshake") return undefined;
    flow.state = "joined";
    flow.stateTick = this.#tick;
    return flow;
  }

  /**
   * The local socket of a claimed flow is closed. When not in order, the kernel has sent a reset, behind the last bytes.
   * With thousands of others' that finds no room in the device's queue (a lost session ends all at once). So the program
   * has ours later: one that is written at once would overtake the bytes.
   */
  ended(flow: TcpFlow, inOrder: boolean): void {
    flow.state = "ended";
    flow.stateTick = this.#tick;
    flow.cut = undefined;
    flow.stream = undefined;
    flow.broken = !inOrder;
  }

  /** Once a second. */
  tick(): void {
    this.#tick++;
    for (const flow of this.#flows.values()) {
      if (flow.handshakeFailed(this.#tick)) {
        if (!flow.wasReset) this.#options.stats.tcpNotAccepted++;
        this.#discard(flow);
      } else if (flow.owesReset(this.#tick)) {
        this.#resetProgram(flow);
      } else if (flow.rested(this.#tick)) {
        this.#remove(flow);
      }
    }
  }

  /**
   * No new connections; so many programs, or none yet, are told that theirs is over. How many are left: no fewer than
   * before when the device takes no packet now. Whoever sends something all the same is told again, as any stranger.
   */
  resetPrograms(count: number): number {
    this.#closed = true;
    const ending = (this.#ending ??= [...this.#flows.values()]);
    for (const flow of ending.slice(this.#told, this.#told + count)) {
      if (this.#byPort[flow.natPort] === flow && !this.#resetProgram(flow)) break;
      this.#told++;
    }
    return ending.length - this.#told;
  }

  /** Ends the streams of so many of them, told or not; how many are left. */
  cut(count: number): number {
    const ending = this.#ending ?? [];
    for (const flow of ending.splice(0, count)) this.#cut(flow);
    return ending.length;
  }

  /** Forgets the flow; false when the device did not take the news. */
  #resetProgram(flow: TcpFlow): boolean {
    if (!flow.finished && !flow.createResets().every((packet) => this.#options.writer.write(packet))) return false;
    return this.#remove(flow);
  }

  /** Room for one more, if need be in place of a connection that is over. */
  #makeRoom(): boolean {
    if (this.#flows.size < maxTcpFlows) return true;
    for (const flow of this.#flows.values()) {
      if (flow.spent) return this.#remove(flow);
    }
    return false;
  }

  #discard(flow: TcpFlow): void {
    this.#cut(flow);
    this.#remove(flow);
  }

  #cut(flow: TcpFlow): void {
    const reason = new AppError("cancelled", "the program's connection ended first");
    flow.abort.abort(reason);
    flow.cut?.();
    flow.stream?.destroy(reason);
  }

  #remove(flow: TcpFlow): boolean {
    if (!this.#flows.remove(flow)) return false;
    this.#byPort[flow.natPort] = undefined;
    this.#ports.give(flow.natPort);
    this.#options.stats.tcpFlows--;
    return true;
  }
}
