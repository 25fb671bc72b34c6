// A stream that the far end wants and nobody has answered yet.
// Invariant: exactly one of accept and reject; once the far end has given up, both are harmless.
import { invariant } from "#base/error.ts";
import type { AppError } from "#base/error.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import type { IncomingStream, TunnelStream } from "./tunnel.ts";

export interface OfferAnswers {
  readonly accept: () => TunnelStream;
  readonly reject: (reason: ResetReason, message: string) => void;
}

export class Offer implements IncomingStream {
  readonly request: OpenRequest;
  readonly #answers: OfferAnswers;
  readonly #controller = new AbortController();
  #answered = false;

  constructor(request: OpenRequest, answers: OfferAnswers) {
    this.request = request;
    this.#answers = answers;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  get answered(): boolean {
    return this.#answered;
  }

  /** After the far end gave up: a stream that is already destroyed. */
  accept(): TunnelStream {
    this.#answer();
    return this.#answers.accept();
  }

  reject(reason: ResetReason, message: string): void {
    this.#answer();
    if (!this.signal.aborted) this.#answers.reject(reason, message);
  }

  /** The far end gave up, or the session ended. */
  abort(error: AppError): void {
    this.#controller.abort(error);
  }

  #answer(): void {
    invariant(!this.#answered, "an incoming stream is answered once");
    this.#answered = true;
  }
}
