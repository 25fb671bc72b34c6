// One who answers a caller's requests over HTTP/2: a connection to the application, or a stream to the laptop. Node's own
// HTTP/2 speaks on it; here is what Node leaves open: whether the far end speaks it at all, which requests it has not
// looked at when it goes away, and that a connection that was given up ends in time.
// Invariant: `onGone` is called once, when no more requests may be sent on it.
import { connect, constants } from "node:http2";
import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Taken } from "#agent/served.ts";
import type { Fields } from "./http2-messages.ts";
import { endLimits, windows } from "./http2-limits.ts";
import { decisionMs } from "#agent/inbound/open-stream.ts";

/** chosen: a far end that does not close a connection by then, although nothing is left on it, is cut. */
const finishMs = 5000;

export interface Http2EndOptions {
  readonly duplex: Duplex;
  /** The intercept whose laptop this is; undefined for the application. */
  readonly taken: Taken | undefined;
  readonly clock: Clock;
  readonly onGone: (end: Http2End) => void;
}

export class Http2End {
  readonly taken: Taken | undefined;
  /** It has answered before. */
  used = false;
  /** Resolves when the far end has greeted, as HTTP/2 does at once; rejects when it does not in time. */
  readonly greeted: Promise<void>;
  readonly #session: ClientHttp2Session;
  readonly #duplex: Duplex;
  readonly #clock: Clock;
  readonly #onGone: (end: Http2End) => void;
  #failure: AppError | undefined;
  #lastProcessed: number | undefined;
  #gone = false;
  #ended = false;
  readonly #open = new Set<ClientHttp2Stream>();

  constructor({ duplex, taken, clock, onGone }: Http2EndOptions) {
    this.taken = taken;
    this.#duplex = duplex;
    this.#clock = clock;
    this.#onGone = onGone;
    duplex.on("error", this.#onFailure); // stays: a late error must not end the process
    this.#session = connect("http://localhost", { ...endLimits, createConnection: () => duplex });
    this.#session.on("error", this.#onFailure);
    this.#session.once("close", () => this.#leave());
    this.#session.once("goaway", (_code, lastStreamId) => {
      this.#lastProcessed = lastStreamId;
      this.#leave();
    });
    this.#session.once("connect", () => {
      if (!this.#session.destroyed) this.#session.setLocalWindowSize(windows.endConnectionBytes);
    });
    duplex.once("end", this.#onEnd);
    this.greeted = this.#waitForGreeting();
    this.greeted.catch(() => undefined); // may have no reader
  }

  get isUsable(): boolean {
    return !this.#gone && !this.#session.closed && !this.#session.destroyed;
  }
  /** The connection is over, and with it whatever was under way. */
  get isLost(): boolean {
    return this.#ended || this.#session.destroyed;
  }
  get lostReason(): string {
    return this.#failure?.message ?? "the connection was closed";
  }
  /** Whether it takes WebSocket and the like (RFC 8441), as it says when it greets. */
  async takesExtendedConnect(): Promise<boolean> {
    await this.greeted;
    return !this.isLost && this.#session.remoteSettings.enableConnectProtocol === true;
  }

  request(fields: Fields, endStream: boolean): ClientHttp2Stream {
    const stream = this.#session.request(fields.forRequest(), { endStream, waitForTrailers: !endStream });
    this.#open.add(stream);
    stream.on("close", () => {
      this.#open.delete(stream);
      if (this.#gone) this.#endInTime();
    });
    return stream;
  }

  /** It has certainly done nothing for this request, so that somebody else may (RFC 9113 §8.7). */
  hasIgnored(stream: ClientHttp2Stream): boolean {
    const { id, rstCode } = stream;
    const isBeyond = this.#lastProcessed !== undefined && id !== undefined && id > this.#lastProcessed;
    return id === undefined || isBeyond || rstCode === constants.NGHTTP2_REFUSED_STREAM;
  }

  /** No more requests; what is under way goes on. */
  close(): void {
    this.#session.close();
    this.#leave();
  }

  destroy(): void {
    this.#session.destroy();
    this.#duplex.destroy();
  }

  async #waitForGreeting(): Promise<void> {
    using limit = deadline(this.#clock, decisionMs, "the settings of HTTP/2");
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#session.once("remoteSettings", () => resolve());
    const onOver = (): void => reject(this.#failure ?? new AppError("refused", this.lostReason));
    this.#session.once("error", onOver).once("close", onOver);
    await raceSignal(promise, limit.signal);
  }

  readonly #onFailure = (error: Error): void => {
    this.#failure ??= toAppError(error);
  };

  /** Nothing more comes. Answers that are here go on, at once and however slow their callers: Node drops them soon. */
  readonly #onEnd = (): void => {
    this.#ended = true;
    for (const stream of this.#open) {
      if (hasWholeAnswer(stream)) stream.resume();
      else stream.destroy();
    }
    this.#session.close();
    this.#leave();
  };

  #leave(): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#endInTime();
    this.#onGone(this);
  }

  #endInTime(): void {
    if (this.#open.size > 0 || this.#duplex.destroyed) return;
    const timer = this.#clock.after(finishMs, () => this.destroy()).unref();
    this.#duplex.once("close", () => timer[Symbol.dispose]());
  }
}

/** Nothing of it is on its way, though it may not have been read yet. */
export function hasWholeAnswer(stream: ClientHttp2Stream): boolean {
  if (stream.closed) return stream.rstCode === constants.NGHTTP2_NO_ERROR;
  return stream.state.state === constants.NGHTTP2_STREAM_STATE_HALF_CLOSED_REMOTE;
}
