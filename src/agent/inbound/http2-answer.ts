// The answer to one request of HTTP/2, from the end's stream to the caller's: interim answers, headers, body with
// back-pressure, trailers.
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
  #trailers: Fields | undefined;
  #isDone = false;

  constructor(from: ClientHttp2Stream, stream: ServerHttp2Stream, onBegin: () => void) {
    this.#from = from;
    this.#stream = stream;
    this.#onBegin = onBegin;
    from.on("headers", this.#onInterim).on("response", this.#onHeaders);
    from.on("trailers", (headers: IncomingHttpHeaders, _flags: number, list: string[]) => {
      this.#trailers = new Fields(list, headers);
    });
    // Before Node's own listener, which closes what has ended.
    from.once("end", () => {
      if (this.#status === undefined || isCut(from)) return;
      this.#isDone = true;
      stream.end();
    });
  }

  /** Undefined until its headers have come. */
  get status(): number | undefined {
    return this.#status;
  }
  /** All of it has come. */
  get isDone(): boolean {
    return this.#isDone;
  }

  readonly #onInterim = (headers: IncomingHttpHeaders, _flags: number, list: string[]): void => {
    const stream = this.#stream;
    if (!stream.headersSent) sendOn(stream, () => stream.additionalHeaders(new Fields(list, headers).byName()));
  };

  readonly #onHeaders = (headers: IncomingHttpHeaders, flags: number, list: string[]): void => {
    const [from, stream] = [this.#from, this.#stream];
    if (stream.closed || stream.headersSent) return;
    this.#status = Number(headers[":status"]);
    this.#onBegin();
    const endStream = endsStream(flags);
    stream.on("wantTrailers", () => sendTrailers(stream, this.#trailers));
    // Node adds a `date` where there is none, unless it is told not to.
    const asItCame: ServerStreamResponseOptions & { sendDate: false } = {
      endStream,
      waitForTrailers: !endStream && stream.writable,
      sendDate: false,
    };
    sendOn(stream, () => stream.respond(new Fields(list, headers).forAnswer(), asItCame));
    stream.on("drain", () => from.resume());
    from.on("data", (bytes: Buffer) => {
      // What has come whole is in memory anyway, and Node drops it when its connection ends.
      if (stream.writable && !stream.write(bytes) && !hasWholeAnswer(from)) from.pause();
    });
  };
}
