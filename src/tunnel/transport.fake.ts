// Two ends of an ordered byte transport in memory, with what real ones do to us: back-pressure, latency, standing
// still, silence and cuts.
import { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";

export interface TransportPairOptions {
  /** With a latency: delays each write one way by so much of this clock's time. */
  readonly clock?: Clock;
  readonly latencyMs?: number;
  /** Bytes that an end takes before `write` says false. */
  readonly highWaterMark?: number;
}

export interface TransportPair {
  readonly opener: FakeTransport;
  readonly accepter: FakeTransport;
  /** Both ends are closed at once, as by RST. */
  cut(): void;
  /** Nothing passes in either direction until `go`: writers meet back-pressure, as behind a black hole. */
  stall(): void;
  go(): void;
}

type Done = (error?: Error | null) => void;

export class FakeTransport extends Duplex {
  #other: FakeTransport | undefined;
  readonly #options: TransportPairOptions;
  #stalled = false;
  /** A write that waits for room at the other end, or for the stall's end. */
  #held: (() => void) | undefined;
  /** Bytes that came in here, for tests that count. */
  receivedBytes = 0;
  /** Writes that came in here. */
  receivedChunks = 0;

  constructor(options: TransportPairOptions) {
    const highWaterMark = options.highWaterMark ?? 64 * 1024;
    super({ allowHalfOpen: true, readableHighWaterMark: highWaterMark, writableHighWaterMark: highWaterMark });
    this.#options = options;
  }

  join(other: FakeTransport): void {
    this.#other = other;
  }

  stall(stalled: boolean): void {
    this.#stalled = stalled;
    if (!stalled) this.proceed();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: Done): void {
    this.#send(chunk, done);
  }
  override _writev(items: readonly { chunk: Uint8Array }[], done: Done): void {
    this.#send(Buffer.concat(items.map((item) => item.chunk)), done);
  }
  override _final(done: Done): void {
    this.#later(() => {
      this.#other?.push(null);
      done();
    });
  }
  override _read(): void {
    this.#other?.proceed();
  }
  override _destroy(error: Error | null, done: Done): void {
    const other = this.#other;
    this.#other = undefined;
    // As a closed socket looks from the other side.
    if (other !== undefined && !other.destroyed && !this.writableFinished) other.destroy();
    done(error);
  }

  #send(bytes: Uint8Array, done: Done): void {
    this.#later(() => {
      const other = this.#other;
      if (other === undefined || other.destroyed) {
        done(new Error("write to a closed transport"));
        return;
      }
      other.receivedBytes += bytes.length;
      other.receivedChunks += 1;
      // A copy, as a real wire makes one: whoever wrote the bytes uses their memory again.
      if (other.push(Buffer.from(bytes))) done();
      else this.#held = done;
    });
  }

  #later(deliver: () => void): void {
    const { clock, latencyMs } = this.#options;
    const now = (): void => {
      if (this.#stalled) this.#held = deliver;
      else deliver();
    };
    if (clock !== undefined && latencyMs !== undefined) clock.after(latencyMs, now);
    else queueMicrotask(now);
  }

  /** There is room at the other end, or the stall is over. */
  proceed(): void {
    if (this.#stalled) return;
    const held = this.#held;
    this.#held = undefined;
    held?.();
  }
}

export function createTransportPair(options: TransportPairOptions = {}): TransportPair {
  const opener = new FakeTransport(options);
  const accepter = new FakeTransport(options);
  opener.join(accepter);
  accepter.join(opener);
  const both = [opener, accepter];
  return {
    opener,
    accepter,
    cut: () => both.forEach((end) => end.destroy()),
    stall: () => both.forEach((end) => end.stall(true)),
    go: () => both.forEach((end) => end.stall(false)),
  };
}
