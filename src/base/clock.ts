// The only place that reads time or sets timers, so that every test owns time (see clock.fake.ts).
import { uptime } from "node:os";

/** A timer or another thing that `using` ends. Disposing twice is harmless. */
export interface Timer extends Disposable {
  /** Lets the process end although the timer is pending. */
  unref(): this;
}

export interface Clock {
  /** Monotonic milliseconds; only differences mean anything. Stands still while the machine sleeps. */
  now(): number;
  /** Wall-clock milliseconds since the epoch; jumps after sleep or NTP. */
  wallMs(): number;
  /** Milliseconds since the machine started, its sleep counted; no setting of the clock moves it. Good to 10 ms. */
  uptimeMs(): number;
  after(delayMs: number, callback: () => void): Timer;
  every(periodMs: number, callback: () => void): Timer;
  /** Resolves after `delayMs`, rejects with the signal's reason when it aborts first. */
  sleep(delayMs: number, signal: AbortSignal): Promise<void>;
}

class NodeTimer implements Timer {
  readonly #handle: NodeJS.Timeout;
  constructor(handle: NodeJS.Timeout) {
    this.#handle = handle;
  }
  unref(): this {
    this.#handle.unref();
    return this;
  }
  [Symbol.dispose](): void {
    clearTimeout(this.#handle);
  }
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallMs: () => Date.now(),
  uptimeMs: () => uptime() * 1000,
  after: (delayMs, callback) => new NodeTimer(setTimeout(callback, delayMs)),
  every: (periodMs, callback) => new NodeTimer(setInterval(callback, periodMs)),
  sleep: (delayMs, signal) => sleepWith(systemClock, delayMs, signal),
};

/** Implements `sleep` on any clock's `after`. */
export function sleepWith(clock: Pick<Clock, "after">, delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      timer[Symbol.dispose]();
      reject(signal.reason as Error);
    };
    const timer = clock.after(delayMs, () => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    });
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
