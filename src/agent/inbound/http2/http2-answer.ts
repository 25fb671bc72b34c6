// The answer to one request of HTTP/2, from the end's stream to the caller's: interim answers, headers, body with
// back-pressure, trailers. Headers wait for the rest of what was read with them: an answer that is whole by then leaves in
// one piece, and needs no frame of its own for its end, nor another turn of the loop for trailers that there are not.
// Invariant: it is ended only when the end has ended it: Node says 'end' of one that was cut, too.
import type {
  ClientHttp2Stream,
  IncomingHttpHeaders,
  ServerHttp2Stream,
  ServerStreamResponseOptions,
} from "node:http2";
import { hasWholeAnswer } from "./http2-end.ts";
import { Fields, endsStream, isCut, sendOn, sendTrailers } from "./http2-messages.ts";

export class Http2Answer {
  readonly #from: ClientHttp2Stream;
  readonly #stream: ServerHttp2Stream;
  readonly #onBegin: () => void;
  #status: number | undefined;
  /** Its headers, as long as they wait, and what has come of its body. */
  #waiting: Fields | undefined;
  #body: Buffer[] = [];
  #trailers: Fields | undefined;
  #isDone = false;

  constructor(from: ClientHttp2Stream, stream: ServerHttp2Stream, onBegin: () => void) {
    this.#from = from;
    this.#stream = stream;
    this.#onBegin = onBegin;
    from.on("headers", this.#onInterim).on("response", this.#onHeaders);
    // Before Node's own listener, which closes what has ended.
    from.on("end", this.#onEnd);
  }

  /** Undefined until its headers have come. */
  get status(): number | undefined {
    return this.#status;
  }
  /** All of it has come. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** What has come goes to the caller. */
  readonly flush = (): void => {
    const fields = this.#waiting;
    if (fields === undefined) return;
    this.#waiting = undefined;
    const stream = this.#stream;
    const isWhole = this.#isDone && this.#trailers === undefined;
    if (!isWhole) stream.on("wantTrailers", () => sendTrailers(stream, this.#trailers));
    this.#respond(fields, { waitForTrailers: !isWhole && stream.writable });
    const last = isWhole ? this.#body.pop() : undefined;
    for (const bytes of this.#body) this.#send(bytes);
    this.#body = [];
    if (isWhole && stream.writable) stream.end(last);
    if (!this.#isDone) stream.on("drain", () => this.#from.resume());
  };

  readonly #onInterim = (headers: IncomingHttpHeaders, _flags: number, list: string[]): void => {
    const stream = this.#stream;
    if (!stream.headersSent) sendOn(stream, () => stream.additionalHeaders(new Fields(list, headers).byName()));
  };

  readonly #onHeaders = (headers: IncomingHttpHeaders, flags: number, list: string[]): void => {
    const [from, stream] = [this.#from, this.#stream];
    if (stream.closed || stream.headersSent) return;
    this.#status = Number(headers[":status"]);
    this.#onBegin();
    const fields = new Fields(list, headers);
    if (endsStream(flags)) {
      this.#respond(fields, { endStream: true });
    } else {
      this.#waiting = fields;
      from.on("trailers", this.#onTrailers);
      setImmediate(this.flush);
    }
    from.on("data", this.#onData);
  };

  readonly #onData = (bytes: Buffer): void => {
    if (this.#waiting === undefined) this.#send(bytes);
    else this.#body.push(bytes);
  };
  readonly #onTrailers = (headers: IncomingHttpHeaders, _flags: number, list: string[]): void => {
    this.#trailers = new Fields(list, headers);
  };
  readonly #onEnd = (): void => {
    if (this.#status === undefined || isCut(this.#from)) return;
    this.#isDone = true;
    this.flush();
    this.#stream.end();
  };

  #respond(fields: Fields, options: ServerStreamResponseOptions): void {
    const stream = this.#stream;
    // Node adds a `date` where there is none, unless it is told not to.
    const asItCame = { ...options, sendDate: false };
    sendOn(stream, () => stream.respond(fields.forAnswer(), asItCame));
  }

  #send(bytes: Buffer): void {
    const [from, stream] = [this.#from, this.#stream];
    // What has come whole is in memory anyway, and Node drops it when its connection ends.
    if (stream.writable && !stream.write(bytes) && !hasWholeAnswer(from)) from.pause();
  }
}
