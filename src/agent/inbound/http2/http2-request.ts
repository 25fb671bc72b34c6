// A request on one stream of a caller's HTTP/2 connection: what was read of it, who has been sent it, and what is held so
// that somebody else can have it after all (DESIGN §5).
// Invariants: its body is ended only when the caller has ended it: Node says 'end' of one that was reset, too; at most
// `filterLimits.bodyBytes` and one chunk are read ahead of a decision, and nothing while an end is being opened.
import type { ClientHttp2Stream, IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import type { Clock, Timer } from "#base/clock.ts";
import { filterLimits } from "#filter/limits.ts";
import type { AskedRequest } from "#agent/decisions.ts";
import { HeldBytes } from "#agent/inbound/http/fail-open.ts";
import { bodyMs } from "#agent/inbound/http/http-intake.ts";
import type { Http2End } from "./http2-end.ts";
import type { RequestCopies } from "#agent/inbound/taps/port-taps.ts";
import { Fields, askedOf, isCut, sendOn, sendTrailers } from "./http2-messages.ts";

const ignore = (): void => undefined;

export class Http2Request {
  readonly asked: AskedRequest;
  readonly fields: Fields;
  readonly #stream: ServerHttp2Stream;
  #toEnd: ClientHttp2Stream | undefined;
  /** What was read and nobody has been sent. */
  #unsent: Buffer[] = [];
  #held = new HeldBytes(true);
  #trailers: Fields | undefined;
  #copies: RequestCopies | undefined;
  #isDone: boolean;
  #isRead = false;
  #onRead: (() => void) | undefined;

  constructor(stream: ServerHttp2Stream, fields: Fields) {
    this.#stream = stream;
    this.fields = fields;
    this.asked = askedOf(fields);
    this.#isDone = stream.endAfterHeaders;
    if (this.#isDone) return;
    stream.on("trailers", (headers: IncomingHttpHeaders, _flags: number, list: string[]) => {
      this.#trailers = new Fields(list, headers);
    });
  }

  /** The caller has said all of it. */
  get isDone(): boolean {
    return this.#isDone;
  }
  /** All that was sent of it can be sent again. */
  get isHeld(): boolean {
    return this.#held.isWhole;
  }
  get endsWithHeaders(): boolean {
    return this.#stream.endAfterHeaders;
  }
  /** Once it is done. */
  get trailers(): Fields | undefined {
    return this.#trailers;
  }
  /** WebSocket and the like (RFC 8441). */
  get isExtendedConnect(): boolean {
    return this.fields.valueOf(":protocol") !== undefined;
  }

  /** Before anything is read of the body. */
  copyTo(copies: RequestCopies): void {
    this.#copies = copies;
    if (this.#isDone) copies.end();
    this.#stream.once("close", () => copies.callerLeft());
  }

  /** Reads the body for a filter, as far as filters look: calls back once, with undefined where it is longer, or late. */
  readBody(clock: Clock, onRead: (body: Buffer | undefined) => void): void {
    const timer: Timer = clock.after(bodyMs, () => this.#onRead?.()).unref();
    this.#onRead = () => {
      this.#onRead = undefined;
      timer[Symbol.dispose]();
      onRead(this.#isDone ? Buffer.concat(this.#unsent) : undefined);
    };
    this.#stream.once("close", () => timer[Symbol.dispose]());
    const { headers } = this.asked;
    const expects = headers.some(({ name, value }) => name === "expect" && /^100-continue$/i.test(value));
    if (expects) sendOn(this.#stream, () => this.#stream.additionalHeaders({ ":status": 100 }));
    this.#read();
  }

  /** Gives it to this end, from its beginning. */
  sendTo(end: Http2End): ClientHttp2Stream {
    const unsent = this.#unsent;
    this.#unsent = [];
    // One whose body was empty may have trailers.
    const toEnd = end.request(this.fields, this.endsWithHeaders);
    this.#toEnd = toEnd;
    toEnd.on("error", ignore); // 'close' follows
    if (this.endsWithHeaders) return toEnd;
    toEnd.on("drain", () => this.#stream.resume());
    toEnd.on("wantTrailers", () => sendTrailers(toEnd, this.#trailers));
    for (const bytes of unsent) this.#send(bytes);
    if (this.#isDone) toEnd.end();
    else this.#read();
    return toEnd;
  }

  /** Takes it back from whoever has it; then it must be held. */
  takeBack(): void {
    this.#stream.pause();
    this.#unsent = [...this.#held.pieces, ...this.#unsent];
    this.#held = new HeldBytes(true);
    this.#toEnd = undefined;
  }

  /** Somebody answers it: nobody else will have it. */
  answered(): void {
    this.#held.drop();
  }

  #read(): void {
    this.#stream.resume();
    if (this.#isRead) return;
    this.#isRead = true;
    this.#stream.on("data", this.#onBytes);
    this.#stream.once("end", () => {
      if (isCut(this.#stream)) return;
      this.#isDone = true;
      this.#copies?.end();
      if (this.#onRead !== undefined) this.#onRead();
      else this.#toEnd?.end();
    });
  }

  readonly #onBytes = (bytes: Buffer): void => {
    this.#copies?.write(bytes);
    if (this.#toEnd !== undefined) {
      this.#send(bytes);
      return;
    }
    this.#unsent.push(bytes);
    const unsentBytes = this.#unsent.reduce((sum, { length }) => sum + length, 0);
    if (this.#onRead === undefined || unsentBytes > filterLimits.bodyBytes) this.#stream.pause();
    if (unsentBytes > filterLimits.bodyBytes) this.#onRead?.();
  };

  #send(bytes: Buffer): void {
    this.#held.add(bytes);
    if (this.#toEnd?.writable === true && !this.#toEnd.write(bytes)) this.#stream.pause();
  }
}
