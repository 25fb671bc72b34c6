// One stream of a caller's HTTP/2 connection: a request, and its answer from whoever it was decided to. Until the answer's
// headers have come, what was sent is held, so that somebody else may have the request after all (DESIGN §5).
//
//   stream ──headers──► decide ──► laptop ──refused, ignored, lost before an answer──► application, or 502 / UNAVAILABLE
//                          └─────► application
//
// Invariants: a body is ended only when its sender has ended it: Node says 'end' of cut ones, too; resets go on with their
// code, both ways; once the caller's stream is closed nothing is heard any more.
import { constants } from "node:http2";
import type {
  ClientHttp2Stream,
  IncomingHttpHeaders,
  ServerHttp2Stream,
  ServerStreamResponseOptions,
} from "node:http2";
import type { Clock, Timer } from "#base/clock.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { filterLimits } from "#filter/limits.ts";
import type { Taken } from "#agent/served.ts";
import { HeldBytes, answerLost, isIdempotent, notTaken } from "./fail-open.ts";
import { sameIntercept } from "./http-decision.ts";
import type { AskedRequest, HttpRoutes } from "./http-decision.ts";
import { bodyMs } from "./http-intake.ts";
import type { Http2End } from "./http2-end.ts";
import type { Http2Ends } from "./http2-ends.ts";
import { Fields, askedOf, endsStream, ownAnswer } from "./http2-messages.ts";

const { NGHTTP2_CANCEL: cancel, NGHTTP2_INTERNAL_ERROR: internalError, NGHTTP2_NO_ERROR: noError } = constants;

export interface Http2ExchangeOptions {
  readonly stream: ServerHttp2Stream;
  readonly fields: Fields;
  readonly ends: Http2Ends;
  readonly routes: HttpRoutes;
  /** Has just refused the connection, and is not asked again for this request. */
  readonly refused: Taken | undefined;
  readonly onAnswer: (exchange: Http2Exchange) => void;
  /** The application's connection ended under it. */
  readonly onApplicationLost: (exchange: Http2Exchange) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Http2Exchange {
  readonly #options: Http2ExchangeOptions;
  readonly #stream: ServerHttp2Stream;
  readonly #request: AskedRequest;
  #taken: Taken | undefined;
  #end: Http2End | undefined;
  #toEnd: ClientHttp2Stream | undefined;
  /** What was read and nobody has been sent. */
  #unsent: Buffer[] = [];
  #held = new HeldBytes(true);
  #requestDone: boolean;
  #requestTrailers: Fields | undefined;
  #answerBegun = false;
  #answerDone = false;
  #retried = false;
  #timer: Timer | undefined;

  constructor(options: Http2ExchangeOptions) {
    this.#options = options;
    this.#stream = options.stream;
    this.#request = askedOf(options.fields);
    this.#requestDone = options.stream.endAfterHeaders;
  }

  /** Undefined: the application has it, or nobody yet. */
  get taken(): Taken | undefined {
    return this.#taken;
  }

  start(): void {
    const stream = this.#stream;
    stream.on("error", () => undefined); // 'close' follows
    stream.on("trailers", (headers: IncomingHttpHeaders, _flags: number, list: string[]) => {
      this.#requestTrailers = new Fields(list, headers);
    });
    stream.on("drain", () => this.#toEnd?.resume());
    stream.once("close", this.#onCallerClosed);
    const taken = this.#options.routes.decide(this.#request, { bytes: undefined, final: this.#requestDone });
    if (taken === "needs-body") this.#waitForBody();
    else this.#decided(taken);
  }

  /** The caller's connection has ended: what it has not said yet will never come. */
  callerEnded(): void {
    if (!this.#requestDone) this.#stream.close(cancel);
  }

  /** For what cannot go on. */
  cut(): void {
    this.#stream.close(internalError);
  }

  // ---- who answers

  #waitForBody(): void {
    this.#timer = this.#options.clock.after(bodyMs, () => this.#decideWithBody()).unref();
    const expects = this.#request.headers.some(({ name, value }) => name === "expect" && /^100-continue$/i.test(value));
    if (expects) this.#stream.additionalHeaders({ ":status": 100 });
    this.#readRequest();
  }

  #decideWithBody(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    const bytes = this.#requestDone ? Buffer.concat(this.#unsent) : undefined;
    const taken = this.#options.routes.decide(this.#request, { bytes, final: true });
    this.#decided(taken === "needs-body" ? undefined : taken);
  }

  #decided(taken: Taken | undefined): void {
    const { refused } = this.#options;
    void this.#sendTo(refused !== undefined && sameIntercept(refused, taken) ? undefined : taken);
  }

  // ---- the request

  #readRequest(): void {
    this.#stream.on("data", this.#onRequestBytes);
    this.#stream.once("end", () => {
      if (this.#isCut(this.#stream)) return;
      this.#requestDone = true;
      if (this.#timer !== undefined) this.#decideWithBody();
      else this.#toEnd?.end();
    });
  }

  readonly #onRequestBytes = (bytes: Buffer): void => {
    if (this.#toEnd !== undefined) {
      this.#send(bytes);
      return;
    }
    this.#unsent.push(bytes);
    if (this.#timer === undefined) this.#stream.pause();
    else if (this.#unsent.reduce((sum, { length }) => sum + length, 0) > filterLimits.bodyBytes) this.#decideWithBody();
  };

  #send(bytes: Buffer): void {
    if (!this.#answerBegun) this.#held.add(bytes);
    if (this.#toEnd?.writable === true && !this.#toEnd.write(bytes)) this.#stream.pause();
  }

  /** Never rejects. */
  async #sendTo(taken: Taken | undefined): Promise<void> {
    this.#taken = taken;
    this.#stream.pause();
    try {
      const end = await this.#options.ends.get(taken);
      if (this.#stream.closed) return;
      if (this.#isExtendedConnect && !(await this.#takesExtendedConnect(end))) this.#onRefused("it takes no WebSocket");
      else this.#begin(end);
    } catch (error) {
      if (this.#stream.closed) return;
      const reason = toAppError(error);
      if (taken === undefined) this.#options.onApplicationLost(this);
      else this.#onRefused(reason.message, isAppError(reason, "refused"));
    }
  }

  get #isExtendedConnect(): boolean {
    return this.#options.fields.valueOf(":protocol") !== undefined;
  }

  async #takesExtendedConnect(end: Http2End): Promise<boolean> {
    await end.greeted;
    return end.takesExtendedConnect;
  }

  #begin(end: Http2End): void {
    const unsent = this.#unsent;
    this.#unsent = [];
    this.#end = end;
    const toEnd = end.request(this.#options.fields, this.#requestDone && unsent.length === 0);
    this.#toEnd = toEnd;
    toEnd.on("error", () => undefined); // 'close' follows
    toEnd.on("headers", this.#onInterim).on("response", this.#onAnswer);
    toEnd.on("drain", () => this.#stream.resume());
    toEnd.on("wantTrailers", () => sendTrailers(toEnd, this.#requestTrailers));
    toEnd.once("end", () => this.#onAnswerEnd(toEnd)); // before Node's own, which closes what has ended
    toEnd.once("close", () => this.#onEndClosed(end, toEnd));
    for (const bytes of unsent) this.#send(bytes);
    if (this.#requestDone) toEnd.end();
    else if (this.#stream.listenerCount("data") === 0) this.#readRequest();
    if (!toEnd.writableNeedDrain) this.#stream.resume();
  }

  // ---- the answer

  readonly #onInterim = (headers: IncomingHttpHeaders, _flags: number, list: string[]): void => {
    const { closed, headersSent } = this.#stream;
    if (!closed && !headersSent) this.#stream.additionalHeaders(new Fields(list, headers).byName());
  };

  readonly #onAnswer = (headers: IncomingHttpHeaders, flags: number, list: string[]): void => {
    const [stream, toEnd] = [this.#stream, this.#toEnd];
    if (stream.closed || toEnd === undefined || this.#end === undefined) return;
    this.#answerBegun = true;
    this.#held.drop();
    this.#end.used = true;
    this.#options.onAnswer(this);
    const endStream = endsStream(flags);
    let trailers: Fields | undefined;
    toEnd.on("trailers", (late: IncomingHttpHeaders, _flags: number, lateList: string[]) => {
      trailers = new Fields(lateList, late);
    });
    stream.on("wantTrailers", () => sendTrailers(stream, trailers));
    const waitForTrailers = !endStream && this.#request.method !== "HEAD";
    // Node adds a `date` where there is none, unless it is told not to.
    const asItCame: ServerStreamResponseOptions & { sendDate: false } = { endStream, waitForTrailers, sendDate: false };
    try {
      stream.respond(new Fields(list, headers).forAnswer(), asItCame);
    } catch {
      this.cut(); // a status that does not exist
      return;
    }
    toEnd.on("data", (bytes: Buffer) => {
      if (stream.writable && !stream.write(bytes)) toEnd.pause();
    });
  };

  #onAnswerEnd(toEnd: ClientHttp2Stream): void {
    if (this.#toEnd !== toEnd || this.#isCut(toEnd)) return;
    this.#answerDone = true;
    this.#stream.end();
  }

  /** Its 'end' says nothing: a reset or a lost connection came before the last byte. */
  #isCut(stream: ClientHttp2Stream | ServerHttp2Stream): boolean {
    return stream.destroyed || (stream.rstCode !== noError && stream.rstCode !== undefined);
  }

  // ---- what goes wrong

  #onEndClosed(end: Http2End, toEnd: ClientHttp2Stream): void {
    if (this.#stream.closed || this.#toEnd !== toEnd) return;
    const code = toEnd.rstCode === noError ? internalError : toEnd.rstCode;
    if (this.#answerDone) {
      // It needed no more of the request (RFC 9113 §8.1).
      if (!this.#requestDone) this.#stream.close(noError);
    } else if (this.#answerBegun) {
      this.#stream.close(end.isLost ? internalError : code);
    } else if (end.hasIgnored(toEnd)) {
      this.#onIgnored(end, code);
    } else if (!end.isLost) {
      this.#stream.close(code);
    } else if (this.#taken === undefined) {
      this.#options.onApplicationLost(this);
    } else {
      this.#onAnswerLost(this.#taken, end);
    }
  }

  /** Nothing was done for it, so whatever it is it may be sent again. */
  #onIgnored(end: Http2End, code: number): void {
    const isLeaving = !end.isUsable;
    if (this.#held.isWhole && isLeaving && !this.#retried) {
      this.#sendAgain(this.#taken, end.lostReason);
    } else if (this.#taken === undefined) {
      this.#stream.close(code);
    } else if (this.#held.isWhole) {
      this.#onRefused("it took no more requests");
    } else {
      this.#answerInstead(answerLost(this.#request.method, "it took no more requests"));
    }
  }

  #onAnswerLost(taken: Taken, end: Http2End): void {
    const { method } = this.#request;
    if (!this.#held.isWhole || !isIdempotent(method)) {
      this.#answerInstead(answerLost(method, end.lostReason));
      return;
    }
    // A process closes connections that were idle: that says nothing about whether it is there.
    const again = end.used && !this.#retried && this.#options.routes.isCurrent(taken);
    this.#sendAgain(again ? taken : undefined, end.lostReason);
  }

  #sendAgain(taken: Taken | undefined, reason: string): void {
    this.#retried = true;
    this.#log(taken === undefined ? "request left to the application" : "request sent again", reason);
    this.#takeBack();
    void this.#sendTo(taken);
  }

  #onRefused(reason: string, byProcess = true): void {
    if (this.#taken === undefined || (byProcess && this.#taken.onRefused === "fail")) {
      this.#answerInstead(this.#taken === undefined ? reason : notTaken(reason));
      return;
    }
    this.#log("request left to the application", reason);
    this.#takeBack();
    void this.#sendTo(undefined);
  }

  #takeBack(): void {
    this.#unsent = [...this.#held.pieces, ...this.#unsent];
    this.#held = new HeldBytes(true);
    this.#toEnd = undefined;
    this.#end = undefined;
  }

  /** Neither the laptop nor the application can answer. */
  #answerInstead(text: string): void {
    const stream = this.#stream;
    const { method } = this.#request;
    this.#options.log.info("request answered by the agent", { method, reason: text });
    this.#toEnd = undefined;
    const { headers, body } = ownAnswer(this.#request, `telepresence: ${text}`);
    stream.respond(headers, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    if (!this.#requestDone) stream.close(noError);
  }

  readonly #onCallerClosed = (): void => {
    this.#timer?.[Symbol.dispose]();
    const toEnd = this.#toEnd;
    const isWhole = this.#requestDone && this.#answerDone && this.#stream.rstCode === noError;
    // What the end has not read yet of a request that it has answered is still its own.
    if (toEnd !== undefined && !isWhole) toEnd.close(this.#stream.rstCode === noError ? cancel : this.#stream.rstCode);
  };

  #log(what: string, reason: string): void {
    this.#options.log.info(what, { interceptId: this.#taken?.interceptId, reason });
  }
}

function sendTrailers(stream: ClientHttp2Stream | ServerHttp2Stream, trailers: Fields | undefined): void {
  if (!stream.closed && !stream.destroyed) stream.sendTrailers(trailers?.byName() ?? {});
}
