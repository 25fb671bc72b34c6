// One program's TCP connection to the cluster, as the redirect knows it.
//
//   held ──far end accepted──▶ handshake ──listener took it──▶ joined ──socket closed──▶ ended
//     └──far end refused──▶ (removed)  └──10 s, or far end lost──▶ (removed)
//
// An ended flow is removed when both kernels have forgotten it; at the end of all, when its program was reset.
//
// The flow outlives its socket: after close() the kernel still has bytes and FINs to deliver through the rewrite.
import type { Duplex } from "node:stream";
import { formatAddress } from "#packet/address.ts";
import type { PacketView } from "#packet/packet-view.ts";
import { planRewrite, type Rewrite } from "#packet/rewrite.ts";
import { createReset, flagsOf, tcpFlags } from "#packet/tcp.ts";
import type { Endpoint } from "#wire/open.ts";
import type { FamilyAddresses } from "./addresses.ts";
import { flowKeyOf, type TableEntry } from "./flow-table.ts";
import { SentSequence } from "./sent-sequence.ts";

export type TcpFlowState = "held" | "handshake" | "joined" | "ended";

/** chosen, seconds since the last packet: for stragglers after a reset, after both FINs, and while bytes are under way. */
const restAfterReset = 2;
const restAfterFins = 10;
const restOtherwise = 300;
/** chosen, seconds: a socket's last bytes and its reset are in the device's queue for milliseconds, if they are. */
const resetLimit = 1;
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
  /** The local socket ended out of order, so that the kernel sent a reset. */
  broken = false;
  /** In seconds of the redirect's own count. */
  lastPacketTick: number;
  stateTick: number;
  #finFromProgram = false;
  #finFromListener = false;
  #reset = false;
  readonly #sent = { program: new SentSequence(), listener: new SentSequence() } as const;

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
  note(view: PacketView, from: "program" | "listener", tick: number): void {
    const flags = flagsOf(view);
    this.lastPacketTick = tick;
    this.#sent[from].note(view);
    if ((flags & tcpFlags.rst) !== 0) this.#reset ||= from === "listener" || this.#answered;
    if ((flags & tcpFlags.fin) === 0) return;
    if (from === "program") this.#finFromProgram = true;
    else this.#finFromListener = true;
  }

  /**
   * The listener's kernel has answered the SYN. Where the port was another connection's just now, its end in TIME_WAIT
   * may answer before. The program's reset is then for that end, and makes way for the SYN that comes again.
   */
  get #answered(): boolean {
    return this.#sent.listener.next !== undefined;
  }

  /**
   * The packets that end the connection for its program, as the target. A kernel takes a reset only where it goes on
   * reading (RFC 9293 §3.10.7.4): behind the last segment that was written to it. Where it had no room for that one it
   * goes on at what it acknowledged last. The acknowledgement is for a program that has had no answer to its SYN.
   */
  createResets(): Uint8Array[] {
    const { program, listener } = this.#sent;
    const { addresses, sourcePort, destinationPort } = this.toProgram;
    const half = addresses.length / 2;
    const ends = {
      source: addresses.subarray(0, half),
      destination: addresses.subarray(half),
      sourcePort,
      destinationPort,
    };
    const acknowledgement = listener.acknowledged ?? (this.initialSequence + 1) >>> 0;
    const sequences = new Set([listener.next ?? 0, program.acknowledged ?? listener.next ?? 0]);
    return Array.from(sequences, (sequence) => createReset(ends, { sequence, acknowledgement }));
  }

  get wasReset(): boolean {
    return this.#reset;
  }
  /** The program knows of the end: by a reset, or it has acknowledged ours and sent its own. */
  get finished(): boolean {
    if (this.#reset) return true;
    const { program, listener } = this.#sent;
    return this.#finFromProgram && this.#finFromListener && program.acknowledged === listener.next;
  }
  /** Both kernels need the mapping for stragglers at most: the place may be taken when places are short. */
  get spent(): boolean {
    return this.state === "ended" && (this.#reset || (this.#finFromProgram && this.#finFromListener));
  }
  /** The listener's kernel swallowed the released SYN. */
  handshakeFailed(tick: number): boolean {
    return this.state === "handshake" && (this.#reset || tick - this.stateTick > handshakeLimit);
  }
  /** The kernel's reset was lost on its way. */
  owesReset(tick: number): boolean {
    return this.broken && !this.finished && tick - this.stateTick > resetLimit;
  }
  rested(tick: number): boolean {
    if (this.state !== "ended") return false;
    const idle = tick - this.lastPacketTick;
    if (this.#reset) return idle > restAfterReset;
    return idle > (this.#finFromProgram && this.#finFromListener ? restAfterFins : restOtherwise);
  }
}
