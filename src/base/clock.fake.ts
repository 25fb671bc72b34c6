// A clock that moves only when a test says so. Timers fire in due order, then in the order they were set.
import type { Clock, Timer } from "./clock.ts";
import { sleepWith } from "./clock.ts";

interface Entry {
  dueMs: number;
  readonly periodMs: number | undefined;
  readonly callback: () => void;
}

export class FakeClock implements Clock {
  #nowMs = 0;
  #sleptMs = 0;
  readonly #entries = new Set<Entry>();

  now(): number {
    return this.#nowMs;
  }
  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs + this.#sleptMs;
  }
  uptimeMs(): number {
    return this.#nowMs + this.#sleptMs;
  }
  /** The machine sleeps: timers and monotonic time stand still. */
  suspend(ms: number): void {
    this.#sleptMs += ms;
  }
  after(delayMs: number, callback: () => void): Timer {
    return this.#add({ dueMs: this.#nowMs + delayMs, periodMs: undefined, callback });
  }
  every(periodMs: number, callback: () => void): Timer {
    return this.#add({ dueMs: this.#nowMs + periodMs, periodMs, callback });
  }
  sleep(delayMs: number, signal: AbortSignal): Promise<void> {
    return sleepWith(this, delayMs, signal);
  }
  /** Number of timers that are set; a test's end should find 0. */
  get pending(): number {
    return this.#entries.size;
  }
  /** Moves time forward, firing what falls due, and lets promise callbacks run between timers. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const next = this.#nextDue(endMs);
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      if (next.periodMs === undefined) this.#entries.delete(next);
      else next.dueMs += next.periodMs;
      next.callback();
      await settle();
    }
    this.#nowMs = endMs;
    await settle();
  }

  #nextDue(endMs: number): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#entries) {
      if (entry.dueMs <= endMs && (best === undefined || entry.dueMs < best.dueMs)) best = entry;
    }
    return best;
  }
  #add(entry: Entry): Timer {
    this.#entries.add(entry);
    const timer: Timer = {
      unref: () => timer,
      [Symbol.dispose]: () => {
        this.#entries.delete(entry);
      },
    };
    return timer;
  }
}

/** Lets every promise callback and immediate that is ready run. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
