// What callers of a UDP port have sent and nobody has answered: kept while it is not known who answers, and for a moment
// after it went to the laptop, because only then ICMP says that no process has the port.
// @from agent/inbound/capture-udp.ts
// Invariant: what all flows of a port hold together is bounded; what is over is dropped, as on a wire.
import type { Clock } from "#base/clock.ts";

/** chosen: bytes of one flow. */
const maxFlowBytes = 64 * 1024;
/** chosen: bytes of all flows of a port. */
const maxPortBytes = 4 * 1024 * 1024;

/** One for all flows of a port. */
export interface HeldBytes {
  bytes: number;
}

export class Unanswered {
  readonly #clock: Clock;
  readonly #all: HeldBytes;
  #held: { readonly datagram: Uint8Array; readonly atMs: number }[] = [];
  #bytes = 0;

  constructor(clock: Clock, all: HeldBytes) {
    this.#clock = clock;
    this.#all = all;
  }

  /** Holds the datagram itself; the oldest make room within the flow. */
  add(datagram: Uint8Array): void {
    while (this.#held.length > 0 && this.#bytes + datagram.length > maxFlowBytes) this.#forgetOldest();
    if (datagram.length > maxFlowBytes || this.#all.bytes + datagram.length > maxPortBytes) return;
    this.#held.push({ datagram, atMs: this.#clock.now() });
    this.#count(datagram.length);
  }

  /** Those that are at most so old, oldest first; nothing is held afterwards. */
  take(maxAgeMs = Number.POSITIVE_INFINITY): readonly Uint8Array[] {
    const sinceMs = this.#clock.now() - maxAgeMs;
    const young = this.#held.filter(({ atMs }) => atMs >= sinceMs).map(({ datagram }) => datagram);
    this.forget();
    return young;
  }

  forget(): void {
    this.#held = [];
    this.#count(-this.#bytes);
  }

  #forgetOldest(): void {
    const oldest = this.#held.shift();
    if (oldest !== undefined) this.#count(-oldest.datagram.length);
  }
  #count(bytes: number): void {
    this.#bytes += bytes;
    this.#all.bytes += bytes;
  }
}
