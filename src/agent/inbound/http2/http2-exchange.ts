// One stream of a caller's HTTP/2 connection: who answers its request, and what becomes of it when they do not.
//
//   request ──► decide ──► laptop ──refused, ignored, lost before an answer──► application, or 502 / UNAVAILABLE
//                  └─────► application
//
// Invariants: until an answer begins, a request that nobody has done anything for goes to somebody else, and one that may
// be sent twice too (DESIGN §5); resets go on with their code, both ways; once the caller's stream is closed nothing is
// heard any more.
import { constants } from "node:http2";
import type { ClientHttp2Stream, ServerHttp2Stream } from "node:http2";
import type { Clock } from "#base/clock.ts";
import { isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Outcome } from "#agent/decisions.ts";
import { sameIntercept } from "#agent/served.ts";
import type { Taken } from "#agent/served.ts";
import { answerLost, isIdempotent, notTaken } from "#agent/inbound/http/fail-open.ts";
import type { ReadyEnd } from "#agent/inbound/http/http-ends.ts";
import type { HttpRoutes } from "#agent/inbound/http/http-decision.ts";
import { Http2Answer } from "./http2-answer.ts";
import type { Http2End } from "./http2-end.ts";
import type { Http2Ends } from "./http2-ends.ts";
import { answerProbe, encodeHead, ownAnswer, sendOn } from "./http2-messages.ts";
import type { Fields } from "./http2-messages.ts";
import { Http2Request } from "./http2-request.ts";
import type { RequestCopies } from "#agent/inbound/taps/port-taps.ts";
import type { Http2Taps } from "#agent/inbound/taps/tap-http2.ts";

const { NGHTTP2_CANCEL: cancel, NGHTTP2_INTERNAL_ERROR: internalError, NGHTTP2_NO_ERROR: noError } = constants;

export interface Http2ExchangeOptions {
  readonly stream: ServerHttp2Stream;
  readonly fields: Fields;
  readonly ends: Http2Ends;
  readonly taps: Http2Taps;
  readonly routes: HttpRoutes;
  /** The laptop that has just refused the connection is not asked again for this request. */
  readonly ready: ReadyEnd | undefined;
  readonly onAnswer: (exchange: Http2Exchange) => void;
  /** The application's connection ended under it. */
  readonly onApplicationLost: (exchange: Http2Exchange) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Http2Exchange {
  readonly #options: Http2ExchangeOptions;
  readonly #stream: ServerHttp2Stream;
  readonly #request: Http2Request;
  #taken: Taken | undefined;
  #toEnd: ClientHttp2Stream | undefined;
  #answer: Http2Answer | undefined;
  #outcome: Outcome | undefined;
  #copies: RequestCopies | undefined;
  #retried = false;

  constructor(options: Http2ExchangeOptions) {
    this.#options = options;
    this.#stream = options.stream;
    this.#request = new Http2Request(options.stream, options.fields);
  }

  /** Undefined: the application has it, or nobody yet. */
  get taken(): Taken | undefined {
    return this.#taken;
  }

  start(): void {
    const { routes, clock } = this.#options;
    const { asked, isDone } = this.#request;
    this.#stream.on("close", () => this.#onCallerClosed());
    this.#copies = this.#options.taps.copy(this.#request);
    if (this.#copies !== undefined) this.#request.copyTo(this.#copies);
    const taken = routes.decide(asked, { bytes: undefined, final: isDone });
    if (taken !== "needs-body") {
      this.#decided(taken);
      return;
    }
    this.#request.readBody(clock, (bytes) => {
      const final = routes.decide(asked, { bytes, final: true });
      this.#decided(final === "needs-body" ? undefined : final);
    });
  }

  /** For what cannot go on. */
  cut(reason: string): void {
    this.#outcome?.cut(reason);
    this.#stream.close(internalError);
  }

  // ---- to an end

  #decided(taken: Taken | undefined): void {
    const { routes, ready, fields } = this.#options;
    const { asked } = this.#request;
    this.#outcome = routes.began(asked, taken, encodeHead(asked, fields));
    if (this.#copies !== undefined) this.#outcome.copiedTo(this.#copies.records);
    if (routes.isAgents(asked)) {
      this.#answerProbe();
      return;
    }
    const isRefused = ready?.refused !== undefined && sameIntercept(ready.refused, taken);
    if (isRefused) this.#outcome.leftToApplication(ready.reason ?? "");
    this.#sendTo(isRefused ? undefined : taken);
  }

  #sendTo(taken: Taken | undefined): void {
    this.#taken = taken;
    const end = this.#request.isExtendedConnect ? undefined : this.#options.ends.ready(taken);
    if (end === undefined) void this.#open(taken);
    else sendOn(this.#stream, () => this.#begin(end));
  }

  /** Never rejects. */
  async #open(taken: Taken | undefined): Promise<void> {
    try {
      const end = await this.#options.ends.get(taken);
      const isPossible = !this.#request.isExtendedConnect || (await end.takesExtendedConnect());
      if (this.#stream.closed) return;
      if (isPossible) sendOn(this.#stream, () => this.#begin(end));
      else this.#onRefused("it does not take WebSocket over HTTP/2");
    } catch (error) {
      if (this.#stream.closed) return;
      const reason = toAppError(error);
      if (taken === undefined) this.#options.onApplicationLost(this);
      else this.#onRefused(reason.message, isAppError(reason, "refused"));
    }
  }

  #begin(end: Http2End): void {
    const toEnd = this.#request.sendTo(end);
    this.#toEnd = toEnd;
    const answer = new Http2Answer(toEnd, this.#stream, () => {
      this.#request.answered();
      end.used = true;
      this.#options.onAnswer(this);
    });
    this.#answer = answer;
    toEnd.on("close", () => {
      if (!this.#stream.closed && this.#toEnd === toEnd) this.#onEndClosed(end, toEnd, answer);
    });
  }

  #onEndClosed(end: Http2End, toEnd: ClientHttp2Stream, answer: Http2Answer): void {
    const code = toEnd.rstCode === noError ? internalError : toEnd.rstCode;
    answer.flush();
    if (answer.isDone) {
      // It needed no more of the request (RFC 9113 §8.1).
      if (!this.#request.isDone) this.#stream.close(noError);
    } else if (answer.status !== undefined) {
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

  // ---- who else

  /** Nothing was done for it, so whatever it is it may be sent again. */
  #onIgnored(end: Http2End, code: number): void {
    if (this.#request.isHeld && !end.isUsable && !this.#retried) {
      this.#sendAgain(this.#taken, end.lostReason);
    } else if (this.#taken === undefined) {
      this.#stream.close(code);
    } else if (this.#request.isHeld) {
      this.#onRefused("it took no more requests");
    } else {
      this.#answerInstead(answerLost(this.#request.asked.method, "it took no more requests"));
    }
  }

  #onAnswerLost(taken: Taken, end: Http2End): void {
    const { method } = this.#request.asked;
    if (!this.#request.isHeld || !isIdempotent(method)) {
      this.#answerInstead(answerLost(method, end.lostReason));
      return;
    }
    // A process that was started anew has closed its connections: that says nothing about whether it is there.
    const again = end.used && !this.#retried && this.#options.routes.isCurrent(taken);
    this.#sendAgain(again ? taken : undefined, end.lostReason);
  }

  #onRefused(reason: string, byProcess = true): void {
    if (this.#taken === undefined) this.#answerInstead(reason);
    else if (byProcess && this.#taken.onRefused === "fail") this.#answerInstead(notTaken(reason));
    else this.#sendAgain(undefined, reason);
  }

  #sendAgain(taken: Taken | undefined, reason: string): void {
    const isLeft = taken === undefined && this.#taken !== undefined;
    const what = isLeft ? "request left to the application" : "request sent again";
    this.#options.log.info(what, { interceptId: this.#taken?.interceptId, reason });
    if (isLeft) this.#outcome?.leftToApplication(reason);
    else this.#retried = true;
    this.#request.takeBack();
    this.#toEnd = undefined;
    this.#answer = undefined;
    this.#sendTo(taken);
  }

  /** Neither the laptop nor the application can answer. */
  #answerInstead(text: string): void {
    const stream = this.#stream;
    const { asked, isDone } = this.#request;
    this.#options.log.info("request answered by the agent", { method: asked.method, reason: text });
    this.#outcome?.answeredByAgent(502, text);
    this.#toEnd = undefined;
    const { headers, body } = ownAnswer(asked, `telepresence: ${text}`);
    stream.respond(headers, { endStream: body === undefined });
    if (body !== undefined) stream.end(body);
    if (!isDone) stream.close(noError);
  }

  #answerProbe(): void {
    this.#outcome?.answeredByAgent(200);
    sendOn(this.#stream, () => answerProbe(this.#stream, this.#request.asked));
  }

  #onCallerClosed(): void {
    const { rstCode } = this.#stream;
    const isWhole = this.#answer?.isDone === true && rstCode === noError;
    if (isWhole) this.#outcome?.answered(this.#answer?.status);
    else this.#outcome?.cut(`the stream was reset with code ${rstCode}`);
    // What an end has not read yet of a request that it has answered is still its own.
    if (isWhole && this.#request.isDone) return;
    this.#toEnd?.close(rstCode === noError ? cancel : rstCode);
  }
}
