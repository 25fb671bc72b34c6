// Whether this agent has time for copies: callers' own traffic passes through the same thread, and on a busy node that gets
// little of a processor. While a timer of ours comes late, no new copies are begun.
// Invariant: without wiretaps no timer runs.
import type { Clock, Timer } from "#base/clock.ts";
import type { ServedIntercepts } from "#agent/served.ts";

/** chosen. */
const stepMs = 100;
/** chosen: later than a thread with some time to spare ever is. */
const defaultLateMs = 200;
/** chosen: as long again, so often, until copies are begun again … */
const restFactor = 5;
/** … and so long at most. */
const maxRestMs = 2000;

export class TapPace implements Disposable {
  readonly #clock: Clock;
  readonly #lateMs: number;
  #timer: Timer | undefined;
  #dueMs = 0;
  #restUntilMs = 0;

  constructor(served: Pick<ServedIntercepts, "hasTaps" | "onChange">, clock: Clock, lateMs = defaultLateMs) {
    this.#clock = clock;
    this.#lateMs = lateMs;
    served.onChange(() => {
      if (!served.hasTaps) this[Symbol.dispose]();
      else if (this.#timer === undefined) this.#start();
    });
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  get isBusy(): boolean {
    if (this.#timer === undefined) return false;
    const nowMs = this.#clock.now();
    return nowMs < this.#restUntilMs || nowMs - this.#dueMs > this.#lateMs;
  }

  #start(): void {
    this.#dueMs = this.#clock.now() + stepMs;
    this.#timer = this.#clock.every(stepMs, () => this.#look()).unref();
  }

  #look(): void {
    const nowMs = this.#clock.now();
    const byMs = nowMs - this.#dueMs;
    if (byMs > this.#lateMs) this.#restUntilMs = nowMs + Math.min(byMs * restFactor, maxRestMs);
    this.#dueMs = nowMs + stepMs;
  }
}
