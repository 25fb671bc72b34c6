// The streams to the laptops behind one manager, by intercept. While a laptop's link is lost, a connection whose bytes
// nobody could begin again stands still and may go on (PROTOCOL §6.5); whatever else is under way ends at once, so that
// the application gets what can still be given to it.
import { AppError } from "#base/error.ts";
import type { Duplex } from "node:stream";
import type { TunnelStream } from "#tunnel/tunnel.ts";

export class InboundStreams {
  readonly #streams = new Map<string, Set<TunnelStream>>();
  readonly #held = new WeakSet<Duplex>();
  #suspended: ReadonlySet<string> = new Set();

  add(interceptId: string, stream: TunnelStream): void {
    let streams = this.#streams.get(interceptId);
    if (streams === undefined) this.#streams.set(interceptId, (streams = new Set()));
    const own = streams.add(stream);
    stream.once("close", () => {
      own.delete(stream);
      if (own.size === 0 && this.#streams.get(interceptId) === own) this.#streams.delete(interceptId);
    });
    if (this.#suspended.has(interceptId)) end(stream); // the answer was on its way when the link was lost
  }

  /** From here on it carries bytes that belong to one connection of a caller's, both ways. */
  hold(stream: Duplex): void {
    this.#held.add(stream);
  }

  /** The intercepts whose laptops have no link now, all of them. */
  suspend(interceptIds: readonly string[]): void {
    this.#suspended = new Set(interceptIds);
    for (const id of interceptIds) {
      for (const stream of this.#streams.get(id) ?? []) if (!this.#held.has(stream)) end(stream);
    }
  }
}

function end(stream: TunnelStream): void {
  stream.destroy(new AppError("link_lost", "the laptop's link is lost"));
}
