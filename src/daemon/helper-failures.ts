// The CLI starts the root helper and tells when it could not (sudo refused, no sudo): whoever waits for the helper
// hears of it.
import type { AppError } from "#base/error.ts";

export class HelperFailures {
  readonly #waiting = new Set<(error: AppError) => void>();

  report(error: AppError): void {
    for (const reject of this.#waiting) reject(error);
  }

  /** Never resolves; rejects with the next failure, or with the signal's reason. */
  next(signal: AbortSignal): Promise<never> {
    return new Promise((_, reject) => {
      const onFailure = (error: AppError): void => {
        this.#waiting.delete(onFailure);
        signal.removeEventListener("abort", onAbort);
        reject(error);
      };
      const onAbort = (): void => {
        this.#waiting.delete(onFailure);
        reject(signal.reason as Error);
      };
      this.#waiting.add(onFailure);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}
