// One program's TCP connection to the cluster, as the redirect knows it.
//
//   held ──far end accepted──▶ handshake ──listener took it──▶ joined ──socket closed──▶ ended
//     └──far end refused──▶ (removed)  └──10 s──▶ (removed)          (removed when both kernels have forgotten it)
//
// The flow outlives its socket: after close() the kernel still has bytes and FINs to deliver through the rewrite.
import type { Duplex } from "node:stream";
import { formatAddress } from "#packet/address.ts";
import type { PacketView } from "#packet/packet-view.ts";
import { planRewrite, type Rewrite } from "#packet/rewrite.ts";
import { tcpFlags } from "#packet/tcp.ts";
import type { Endpoint } from "#wire/open.ts";
import type { FamilyAddresses } from "./addresses.ts";
import { flowKeyOf, type TableEntry } from "./flow-table.ts";

export type TcpFlowState = "held" | "handshake" | "joined" | "ended";

/** chosen, seconds since the last packet: for stragglers after a reset, after both FINs, and while bytes are under way. */
const restAfterReset = 2;
const restAfterFins = 10;
const restOtherwise = 300;
/** chosen, seconds: the local handshake takes microseconds; this long means that something swallows it. */
const handshakeLimit = 10;

export class TcpFlow implements TableEntry<TcpFlow> {
  readonly key: Uint8Array;
  nextInBucket: TcpFlow | undefined;
  readonly natPort: number;
  readonly program: Endpoint;
  readonly target: Endpoint;
  readonly toListener: Rewrite;
  readonly toProgram: Rewrite;
  readonly abort = new AbortController();
  state: TcpFlowState = "held";
  /** The held first segment; empty once it was released. */
  syn: Uint8Array;
  initialSequence = 0;
  /** The far end's stream, from acceptance on. */
  stream: Duplex | undefined;
  /** Cuts the local socket, from joining on. */
  cut: (() => void) | undefined;
  /** In seconds of the redirect's own count. */
  lastPacketTick: number;
  stateTick: number;
  #finFromProgram = false;
  #finFromListener = false;
  #reset = false;

  constructor(view: PacketView, options: { natPort: number; listenPort: number; tick: number; own: FamilyAddresses }) {
    const { natPort, listenPort, tick, own } = options;
    this.key = flowKeyOf(view);
    this.natPort = natPort;
    this.syn = view.bytes.slice(0, view.end);
    this.lastPacketTick = tick;
    this.stateTick = tick;
    const { sourcePort, destinationPort } = view;
    const source = view.source();
    const destination = view.destination();
    this.program = { address: formatAddress(source), port: sourcePort };
    this.target = { address: formatAddress(destination), port: destinationPort };
    this.toListener = planRewrite(
      { source, destination, sourcePort, destinationPort },
      { source: own.peer, destination: own.address, sourcePort: natPort, destinationPort: listenPort },
    );
    this.toProgram = planRewrite(
      { source: own.address, destination: own.peer, sourcePort: listenPort, destinationPort: natPort },
      { source: destination, destination: source, sourcePort: destinationPort, destinationPort: sourcePort },
    );
  }

  /** Remembers what a passing segment says about the connection's end. */
  note(flags: number, from: "program" | "listener", tick: number): void {
    this.lastPacketTick = tick;
    if ((flags & tcpFlags.rst) !== 0) this.#reset = true;
    if ((flags & tcpFlags.fin) === 0) return;
    if (from === "program") this.#finFromProgram = true;
    else this.#finFromListener = true;
  }

  get wasReset(): boolean {
    return this.#reset;
  }
  /** Both kernels need the mapping for stragglers at most: the place may be taken when places are short. */
  get spent(): boolean {
    return this.state === "ended" && (this.#reset || (this.#finFromProgram && this.#finFromListener));
  }
  /** The listener's kernel swallowed the released SYN. */
  handshakeFailed(tick: number): boolean {
    return this.state === "handshake" && (this.#reset || tick - this.stateTick > handshakeLimit);
  }
  rested(tick: number): boolean {
    if (this.state !== "ended") return false;
    const idle = tick - this.lastPacketTick;
    if (this.#reset) return idle > restAfterReset;
    return idle > (this.#finFromProgram && this.#finFromListener ? restAfterFins : restOtherwise);
  }
}
