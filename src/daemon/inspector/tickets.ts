// Addresses by which a browser is started: each good once, for a short time.
import { randomBytes } from "node:crypto";
import type { Clock } from "#base/clock.ts";

/** chosen: a browser that has to start first; pages that are opened at once. */
const [lastsMs, maxTickets] = [60_000, 8];

export class Tickets {
  readonly #clock: Pick<Clock, "now">;
  /** Their ends, oldest first. */
  readonly #good = new Map<string, number>();

  constructor(clock: Pick<Clock, "now">) {
    this.#clock = clock;
  }

  add(): string {
    const ticket = randomBytes(32).toString("base64url");
    this.#good.set(ticket, this.#clock.now() + lastsMs);
    if (this.#good.size > maxTickets) this.#good.delete(this.#good.keys().next().value ?? "");
    return ticket;
  }

  use(ticket: string): boolean {
    const endsAt = this.#good.get(ticket);
    this.#good.delete(ticket);
    return endsAt !== undefined && this.#clock.now() < endsAt;
  }
}
