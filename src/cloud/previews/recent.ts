// Answers of the database that hold for a moment, so that a page of a hundred files asks once; bounded in number.
import type { Clock } from "#base/clock.ts";

/** chosen. */
const maxEntries = 5000;

export class Recent<V> {
  readonly #holdsMs: number;
  readonly #clock: Pick<Clock, "now">;
  readonly #entries = new Map<string, { readonly value: Promise<V>; readonly untilMs: number }>();

  constructor(holdsMs: number, clock: Pick<Clock, "now">) {
    this.#holdsMs = holdsMs;
    this.#clock = clock;
  }

  get(key: string, ask: () => Promise<V>): Promise<V> {
    const nowMs = this.#clock.now();
    const known = this.#entries.get(key);
    if (known !== undefined && known.untilMs > nowMs) return known.value;
    const value = ask();
    value.catch(() => this.#entries.delete(key));
    this.#entries.delete(key);
    this.#entries.set(key, { value, untilMs: nowMs + this.#holdsMs });
    const [oldest] = this.#entries.keys();
    if (this.#entries.size > maxEntries && oldest !== undefined) this.#entries.delete(oldest);
    return value;
  }

  forget(isMeant: (key: string) => boolean): void {
    for (const key of this.#entries.keys()) if (isMeant(key)) this.#entries.delete(key);
  }
}
