// When an ephemeral agent ends by itself: nothing can remove it from its pod, and it shares the application's memory
// limit. It stays a while to be found again by the next intercept.
//
//   needed ──nothing served, no connection, no redirect──► idle ──idleExitMs──► over
//      ▲                                                    │ ▲ └──retired──► over
//      └────────────────────intercept──────────────────────┘ └─introduction: waits anew, is no longer retired
// Invariant: never over while a connection came through the redirect.
import type { Clock, Timer } from "#base/clock.ts";

/** chosen: how often it is looked at; what an agent costs meanwhile does not matter. */
const stepMs = 1000;

export interface IdleOptions {
  readonly idleExitMs: number;
  /** It serves somebody, or connections depend on it. */
  readonly isNeeded: () => boolean;
  readonly clock: Clock;
}

export class Idle implements Disposable {
  /** Resolves when the agent may end. */
  readonly over: Promise<void>;
  readonly #options: IdleOptions;
  readonly #end: () => void;
  readonly #timer: Timer;
  #neededMs: number;
  #retired = false;

  constructor(options: IdleOptions) {
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#end = resolve;
    this.#neededMs = options.clock.now();
    this.#timer = options.clock.every(stepMs, () => this.#look()).unref();
  }

  /** A laptop wants it. */
  touch(): void {
    this.#retired = false;
    this.#neededMs = this.#options.clock.now();
  }

  /** No longer waits for the next laptop. */
  retire(): void {
    this.#retired = true;
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }

  #look(): void {
    const { clock, idleExitMs, isNeeded } = this.#options;
    const nowMs = clock.now();
    if (isNeeded()) this.#neededMs = nowMs;
    else if (this.#retired || nowMs - this.#neededMs >= idleExitMs) this.#end();
  }
}
