// How far one end of a TCP connection has come, read off the segments that passed (RFC 9293 §3.4): numbers of 32 bits
// that wrap. Kept as signed ones, which a field holds without allocating; "later" is a difference above zero.
//
// The count begins with a SYN, and anew with a SYN at another number: what passes before it is of an earlier connection
// between the same ends, in TIME_WAIT (RFC 9293 §3.6.1), whose numbers say nothing about this one's.
import { acknowledgementOf, flagsOf, sequenceEndOf, tcpFlags } from "#packet/tcp.ts";
import type { PacketView } from "#packet/packet-view.ts";

export class SentSequence {
  /** Behind its SYN. */
  #start: number | undefined;
  #next: number | undefined;
  #acknowledged: number | undefined;

  /** The number behind the last one that it sent, unsigned: SND.NXT. Undefined before its SYN. */
  get next(): number | undefined {
    return unsigned(this.#next);
  }
  /** The highest number that it acknowledged, unsigned. Undefined before its first one. */
  get acknowledged(): number | undefined {
    return unsigned(this.#acknowledged);
  }

  /** A segment of this end; one that was sent before changes nothing. */
  note(view: PacketView): void {
    const flags = flagsOf(view);
    if ((flags & tcpFlags.rst) !== 0) return;
    const end = sequenceEndOf(view) | 0;
    if ((flags & tcpFlags.syn) !== 0) this.#begin(end);
    if (this.#start === undefined) return;
    this.#next = later(this.#next, end);
    if ((flags & tcpFlags.ack) !== 0) this.#acknowledged = later(this.#acknowledged, acknowledgementOf(view) | 0);
  }

  #begin(start: number): void {
    if (start === this.#start) return; // the same SYN again
    this.#start = start;
    this.#next = start;
    this.#acknowledged = undefined;
  }
}

function later(known: number | undefined, seen: number): number {
  return known === undefined || ((seen - known) | 0) > 0 ? seen : known;
}

function unsigned(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value >>> 0;
}
