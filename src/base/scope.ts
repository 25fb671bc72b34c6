// Ownership: whoever opens disposes. A Scope disposes what was given to it in reverse order, once, and carries the
// signal that ends its background work.
import { AppError } from "./error.ts";
import type { Logger } from "./log.ts";

export class Scope implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #controller = new AbortController();
  readonly #background = new Set<Promise<void>>();
  readonly #log: Logger;
  #closing: Promise<void> | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Aborts when the scope is disposed. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  get disposed(): boolean {
    return this.#closing !== undefined;
  }

  /** Takes ownership: disposed, in reverse order, with the scope. */
  use<T extends Disposable | AsyncDisposable>(resource: T): T {
    return this.#stack.use(resource);
  }
  /** Registers an undo. */
  defer(undo: () => void | Promise<void>): void {
    this.#stack.defer(undo);
  }
  /** Runs a promise nobody awaits: a failure is logged under its name, and disposal waits for its end. */
  background(name: string, promise: Promise<unknown>): void {
    const watched = promise.then(
      () => undefined,
      (error: unknown) => {
        if (!this.signal.aborted) this.#log.error("background work failed", { name, error: String(error) });
      },
    );
    this.#background.add(watched);
    void watched.finally(() => this.#background.delete(watched));
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#controller.abort(new AppError("cancelled", "the work was ended"));
    try {
      await this.#stack.disposeAsync();
    } finally {
      await Promise.all(this.#background);
    }
  }
}
