// Tells at once what is rare, and what is frequent only so often.
import type { Clock, Timer } from "./clock.ts";

export class Pace implements Disposable {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #tell: () => void;
  #timer: Timer | undefined;
  #isDue = false;

  /** `tell` is called at most once in `intervalMs`. */
  constructor(clock: Clock, intervalMs: number, tell: () => void) {
    this.#clock = clock;
    this.#intervalMs = intervalMs;
    this.#tell = tell;
  }

  /** There is something to tell: now, or when the time since the last telling is over. */
  due(): void {
    this.#isDue = true;
    if (this.#timer === undefined) this.#next();
  }

  [Symbol.dispose](): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    this.#isDue = false;
  }

  #next(): void {
    this.#timer = undefined;
    if (!this.#isDue) return;
    this.#isDue = false;
    this.#timer = this.#clock.after(this.#intervalMs, () => this.#next()).unref();
    this.#tell();
  }
}
