// Streams that this end wants and the far end has not answered yet.
// Invariant: each settles once, by the answer, its signal, the time-out or the session's end; then its timer and
// listener are gone.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Reason } from "#wire/frame-body.ts";
import { openTimeoutMs } from "#wire/limits.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import type { TunnelStream } from "./tunnel.ts";

interface Opening {
  readonly request: OpenRequest;
  readonly resolve: (stream: TunnelStream) => void;
  readonly reject: (error: unknown) => void;
}

export interface OpeningsOptions {
  readonly clock: Clock;
  /** Tells the far end that nobody waits for this stream any more. */
  readonly giveUp: (id: number, reason: ResetReason) => void;
  /** One has settled. */
  readonly onSettled: () => void;
}

export class Openings {
  readonly #options: OpeningsOptions;
  readonly #openings = new Map<number, Opening>();

  constructor(options: OpeningsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#openings.size;
  }
  has(id: number): boolean {
    return this.#openings.has(id);
  }

  wait(id: number, request: OpenRequest, signal: AbortSignal): Promise<TunnelStream> {
    return new Promise<TunnelStream>((resolve, reject) => {
      const settle = (): void => {
        this.#openings.delete(id);
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        this.#options.onSettled();
      };
      const giveUp = (error: unknown, reason: ResetReason): void => {
        this.#options.giveUp(id, reason);
        settle();
        reject(error as Error);
      };
      const onAbort = (): void => giveUp(signal.reason, "cancelled");
      const timer = this.#options.clock.after(openTimeoutMs, () =>
        giveUp(new AppError("timeout", `the far end did not answer within ${openTimeoutMs / 1000} s`), "timeout"),
      );
      signal.addEventListener("abort", onAbort, { once: true });
      this.#openings.set(id, {
        request,
        resolve: (stream) => {
          settle();
          resolve(stream);
        },
        reject: (error) => {
          settle();
          reject(error as Error);
        },
      });
    });
  }

  /** OPEN_OK; false when nobody waits. `make` registers the stream before its opener learns of it. */
  accepted(id: number, make: (request: OpenRequest) => TunnelStream): boolean {
    const opening = this.#openings.get(id);
    opening?.resolve(make(opening.request));
    return opening !== undefined;
  }

  /** REJECT; false when nobody waits. */
  refused(id: number, error: AppError): boolean {
    const opening = this.#openings.get(id);
    opening?.reject(error);
    return opening !== undefined;
  }

  /** The session is over. */
  refuseAll(error: AppError): void {
    for (const opening of this.#openings.values()) opening.reject(error);
  }
}

/** A reset code as the error it stands for: every ResetReason is an error code. */
export function wireError({ reason = "internal", message }: Reason): AppError {
  return new AppError(reason, message === "" ? `the far end ended it (${reason})` : message);
}
