// The CLI starts the root helper and tells when it could not (sudo refused, no sudo): whoever waits for the helper
// hears of it, also when the news came before the wait began.
import type { AppError } from "#base/error.ts";

export class HelperFailures {
  readonly #waiting = new Set<(error: AppError) => void>();
  #kept: AppError | undefined;

  report(error: AppError): void {
    this.#kept = error;
    for (const reject of this.#waiting) reject(error);
  }
  /** What was reported so far no longer counts. */
  forget(): void {
    this.#kept = undefined;
  }

  /** Never resolves; rejects with the failure that was or will be reported, or with the signal's reason. */
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
      if (this.#kept !== undefined) onFailure(this.#kept);
    });
  }
}
