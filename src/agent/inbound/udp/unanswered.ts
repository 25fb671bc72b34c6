// What callers of a UDP port have sent and nobody has answered: kept while it is not known who answers, and for a moment
// after it was sent, because only then ICMP says that nobody has the port.
// @from agent/inbound/udp/capture-udp.ts
// Invariant: what all flows of a port hold together is bounded; the oldest makes room, whoever sent it, so that callers
// who are never answered keep no room from others.
import type { Clock } from "#base/clock.ts";

/** chosen: bytes of one flow. */
const maxFlowBytes = 64 * 1024;
/** chosen: bytes of all flows of a port. */
const maxPortBytes = 4 * 1024 * 1024;

/** chosen: what Node keeps beside a datagram's bytes, rounded up; an empty one is not free. */
const eachBytes = 256;

interface Held {
  readonly datagram: Uint8Array;
  readonly bytes: number;
  readonly atMs: number;
  readonly flow: Unanswered;
}

/** One for all flows of a port; oldest first. */
export class HeldDatagrams {
  readonly all = new Set<Held>();
  bytes = 0;
}

export class Unanswered {
  readonly #clock: Clock;
  readonly #port: HeldDatagrams;
  readonly #held = new Set<Held>();
  #bytes = 0;

  constructor(clock: Clock, port: HeldDatagrams) {
    this.#clock = clock;
    this.#port = port;
  }

  /** Holds the datagram itself. */
  add(datagram: Uint8Array): void {
    const bytes = datagram.length + eachBytes;
    if (bytes > maxFlowBytes) return;
    while (this.#bytes + bytes > maxFlowBytes) forgetFirst(this.#held);
    while (this.#port.bytes + bytes > maxPortBytes) forgetFirst(this.#port.all);
    const held = { datagram, bytes, atMs: this.#clock.now(), flow: this };
    this.#held.add(held);
    this.#port.all.add(held);
    this.#bytes += bytes;
    this.#port.bytes += bytes;
  }

  /** Those that are at most so old, oldest first; nothing is held afterwards. */
  take(maxAgeMs = Number.POSITIVE_INFINITY): readonly Uint8Array[] {
    const sinceMs = this.#clock.now() - maxAgeMs;
    const young = [...this.#held].filter(({ atMs }) => atMs >= sinceMs).map(({ datagram }) => datagram);
    this.forget();
    return young;
  }

  forget(): void {
    for (const held of this.#held) this.forgetOne(held);
  }

  forgetOne(held: Held): void {
    if (!this.#held.delete(held)) return;
    this.#port.all.delete(held);
    this.#bytes -= held.bytes;
    this.#port.bytes -= held.bytes;
  }
}

function forgetFirst(set: ReadonlySet<Held>): void {
  const [first] = set;
  first?.flow.forgetOne(first);
}
