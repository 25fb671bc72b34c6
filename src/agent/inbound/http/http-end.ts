// One who answers a caller's requests: a connection to the application, or a stream to the laptop.
// Invariant: after `finish`, `reset` and `detach` its listener hears nothing more.
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Taken } from "#agent/served.ts";

/** chosen: a process that does not end its half by then is cut. */
const finishMs = 5000;

export interface HttpEndListener {
  onBytes(end: HttpEnd, bytes: Buffer): void;
  /** Nothing more will come from it. */
  onEnd(end: HttpEnd): void;
  onFailure(end: HttpEnd, error: Error): void;
  /** It takes bytes again. */
  onDrain(end: HttpEnd): void;
}

export class HttpEnd {
  readonly duplex: Duplex;
  /** The intercept whose laptop this is; undefined for the application. */
  readonly taken: Taken | undefined;
  /** It has answered before. */
  used = false;
  idleSinceMs: number;
  readonly #listener: HttpEndListener;
  readonly #clock: Clock;
  #failure: Error | undefined;

  constructor(duplex: Duplex, taken: Taken | undefined, listener: HttpEndListener, clock: Clock) {
    this.duplex = duplex;
    this.taken = taken;
    this.#listener = listener;
    this.#clock = clock;
    this.idleSinceMs = clock.now();
    duplex.on("error", this.#onError); // stays: a late error must not end the process
    duplex.on("data", this.#onData).on("end", this.#onEnd).on("close", this.#onClose).on("drain", this.#onDrain);
    duplex.resume();
  }

  /** Whether a request can be written to it. */
  get usable(): boolean {
    return this.duplex.writable && this.duplex.readable;
  }

  /** It is not needed any more, and no answer is under way: an orderly end. */
  finish(): void {
    this.detach();
    const { duplex } = this;
    if (this.taken === undefined && duplex instanceof Socket) {
      duplex.destroySoon();
      return;
    }
    if (duplex.destroyed) return;
    duplex.resume().end();
    const timer = this.#clock.after(finishMs, () => duplex.destroy());
    timer.unref();
    duplex.once("close", () => timer[Symbol.dispose]());
  }

  /** The other side shall see that something was cut. */
  reset(): void {
    this.detach();
    if (this.duplex instanceof Socket) this.duplex.resetAndDestroy();
    else this.duplex.destroy(new AppError("cancelled", "the caller is gone"));
  }

  /** For whoever takes the duplex over. */
  detach(): Duplex {
    const { duplex } = this;
    duplex.off("data", this.#onData).off("end", this.#onEnd).off("close", this.#onClose).off("drain", this.#onDrain);
    return duplex;
  }

  readonly #onData = (bytes: Buffer): void => this.#listener.onBytes(this, bytes);
  readonly #onEnd = (): void => this.#listener.onEnd(this);
  readonly #onDrain = (): void => this.#listener.onDrain(this);
  readonly #onError = (error: Error): void => {
    this.#failure = error;
  };
  readonly #onClose = (): void => {
    // After an orderly end of both halves, 'end' was heard already.
    if (this.#failure === undefined && this.duplex.readableEnded) return;
    this.#listener.onFailure(this, this.#failure ?? new AppError("peer_reset", "the connection was closed"));
  };
}
