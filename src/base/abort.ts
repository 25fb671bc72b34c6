// Joining abort signals without the leak of AbortSignal.any on long-lived parents (nodejs/node#54614): the link is
// disposable and its maker ends it.
import type { Clock } from "./clock.ts";
import { AppError } from "./error.ts";

export interface LinkedSignal extends Disposable {
  readonly signal: AbortSignal;
}

/** A signal that aborts when any parent does, until disposed. */
export function linkSignals(...parents: readonly AbortSignal[]): LinkedSignal {
  const controller = new AbortController();
  const onAbort = (event: Event): void => controller.abort((event.target as AbortSignal).reason);
  for (const parent of parents) {
    if (parent.aborted) controller.abort(parent.reason);
    else parent.addEventListener("abort", onAbort, { once: true });
  }
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const parent of parents) parent.removeEventListener("abort", onAbort);
    },
  };
}

/** A signal that aborts with a `timeout` error after `ms`, or with the parent. `what` names the thing waited for. */
export function deadline(clock: Clock, ms: number, what: string, parent?: AbortSignal): LinkedSignal {
  const controller = new AbortController();
  const timer = clock.after(ms, () => {
    controller.abort(new AppError("timeout", `${what} took longer than ${formatDuration(ms)}`));
  });
  const linked = parent === undefined ? undefined : linkSignals(parent, controller.signal);
  return {
    signal: linked?.signal ?? controller.signal,
    [Symbol.dispose]: () => {
      timer[Symbol.dispose]();
      linked?.[Symbol.dispose]();
    },
  };
}

/** `1500` as `1.5 s`, `300` as `300 ms`. */
export function formatDuration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${Number((ms / 1000).toFixed(1))} s`;
}

/** Rejects with the signal's reason when it aborts before the promise settles; the promise itself goes on. */
export function raceSignal<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    promise.catch(() => undefined); // its outcome no longer has a reader
    return Promise.reject(signal.reason as Error);
  }
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
