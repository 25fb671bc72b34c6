// Refusals of strangers, logged so that they are seen and cannot flood: the first at once, then at most one line for
// each kind in ten seconds with the number of those not shown.
import type { Clock } from "#base/clock.ts";
import type { Fields, Logger } from "#base/log.ts";

/** chosen. */
const intervalMs = 10_000;

export class RefusalLog {
  readonly #clock: Clock;
  readonly #log: Logger;
  /** By message: a fixed set, so this cannot grow. */
  readonly #kinds = new Map<string, { lastMs: number; hidden: number }>();

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** `message` is a constant sentence. */
  warn(message: string, fields: Fields): void {
    const now = this.#clock.now();
    const kind = this.#kinds.get(message);
    if (kind !== undefined && now - kind.lastMs < intervalMs) {
      kind.hidden += 1;
      return;
    }
    this.#kinds.set(message, { lastMs: now, hidden: 0 });
    this.#log.warn(message, kind === undefined || kind.hidden === 0 ? fields : { ...fields, alsoRefused: kind.hidden });
  }
}
