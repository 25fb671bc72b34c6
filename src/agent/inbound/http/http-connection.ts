// One caller's connection that speaks HTTP/1.1: each request is decided by itself, so a connection that was kept open
// follows an intercept and its end at the next request (DESIGN §5). One request at a time; what the caller sends ahead
// waits in its socket. Bytes pass through unchanged.
//
//   caller ──head──► decide ──► laptop's stream ──refused, lost before an answer──► application, or 502
//                       └─────► application's connection
//
// Invariants: what is not understood goes to the application as it is, and the rest of the connection with it; a
// truncated answer of the laptop is never ended in order; nothing is heard once `#over`.
// @from agent/inbound/capture.ts
// @to agent/inbound/http/http-ends.ts
import { Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { encodeAnswer } from "#http/answer.ts";
import { recogniseHttp } from "#http/recognise.ts";
import { staysOpen } from "#http/head.ts";
import type { Outcome } from "#agent/decisions.ts";
import { sameIntercept } from "#agent/served.ts";
import type { Taken } from "#agent/served.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { answerLost, notTaken } from "./fail-open.ts";
import { readAsked, type HttpRoutes } from "./http-decision.ts";
import type { HttpEnd, HttpEndListener } from "./http-end.ts";
import { HttpEnds } from "./http-ends.ts";
import type { HttpEndsOptions, ReadyEnd } from "./http-ends.ts";
import { Exchange } from "./http-exchange.ts";
import { HttpIntake } from "./http-intake.ts";
import type { TakenIn } from "./http-intake.ts";
import type { RequestCopies } from "#agent/inbound/taps/port-taps.ts";

/** chosen: how long a caller may take to read an answer of ours before its connection is cut. */
const lingerMs = 2000;
/** chosen: longer than most callers leave a connection that is in use alone. */
const retireIdleMs = 5000;

export interface HttpConnectionOptions extends HttpEndsOptions {
  readonly caller: Socket;
  /** Opened before it was known what the caller speaks. */
  readonly ready: ReadyEnd | undefined;
  readonly routes: HttpRoutes;
  /** For wiretaps, as far as it was read; undefined when there is none. */
  readonly copy: (request: TakenIn) => RequestCopies | undefined;
  /** The application has the connection byte by byte from here on. */
  readonly onPassed: (application: Socket) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class HttpConnection implements HttpEndListener {
  readonly #options: HttpConnectionOptions;
  readonly #caller: Socket;
  readonly #ends: HttpEnds;
  readonly #intake: HttpIntake;
  #exchange: Exchange | undefined;
  /** About the last request. */
  #outcome: Outcome | undefined;
  /** Read from the caller, and not yet looked at. */
  #waiting: Buffer | undefined;
  #callerEnded = false;
  /** The laptop that has just refused this connection is not asked again for its first request. */
  #refused: Taken | undefined;
  #over = false;
  #idleSinceMs: number;
  #retiredMs: number | undefined;

  constructor(options: HttpConnectionOptions) {
    this.#options = options;
    this.#caller = options.caller;
    this.#idleSinceMs = options.clock.now();
    this.#ends = new HttpEnds(options, this);
    this.#refused = options.ready?.refused;
    this.#intake = new HttpIntake({
      routes: options.routes,
      clock: options.clock,
      onRequest: (request) => this.#begin(request),
      onUnclear: (reason) => this.#giveUp(reason),
      askForBody: () => void options.caller.write("HTTP/1.1 100 Continue\r\n\r\n"),
    });
  }

  /** `first` is what the caller has sent so far. */
  start(first: Buffer): void {
    const { ready } = this.#options;
    const caller = this.#caller;
    if (ready !== undefined) this.#ends.adopt(ready.duplex, ready.taken);
    caller.on("data", this.#onCallerBytes).on("end", this.#onCallerEnd);
    caller.on("close", this.#onCallerClose).on("drain", this.#onCallerDrain);
    this.#waiting = first;
    if (caller.destroyed) this.#onCallerClose();
    else if (caller.readableEnded) this.#onCallerEnd();
    this.#readOn();
  }

  /** What is intercepted has changed. An exchange under way goes on. */
  routesChanged(): void {
    if (!this.#over) this.#ends.dropLaptops(this.#options.routes.isCurrent, this.#exchange?.end);
  }

  /**
   * The pod is ending; said again and again. The caller is told with the laptop's next answer, as the application tells
   * it with its own; a caller that is silent for long is not waited for.
   */
  retire(): void {
    const nowMs = this.#options.clock.now();
    this.#retiredMs ??= nowMs;
    const sinceMs = Math.max(this.#retiredMs, this.#idleSinceMs);
    const idle = this.#exchange === undefined && this.#waiting === undefined && this.#intake.isEmpty;
    if (!this.#over && idle && nowMs - sinceMs >= retireIdleMs) this.#closeAll();
  }

  // ---- from the caller

  readonly #onCallerBytes = (chunk: Buffer): void => {
    if (this.#waiting === undefined) this.#consume(chunk);
    else this.#keep(Buffer.concat([this.#waiting, chunk]));
  };
  readonly #onCallerEnd = (): void => {
    this.#callerEnded = true;
    this.#passCallerEnd();
  };
  readonly #onCallerClose = (): void => {
    if (this.#over) return;
    this.#outcome?.cut("the caller left");
    this.#leave();
    this.#ends.finishAll(this.#exchange?.end);
  };
  readonly #onCallerDrain = (): void => this.#ends.resumeAll();

  #consume(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.#over) {
      const exchange = this.#exchange;
      if (exchange === undefined) {
        at = this.#intake.take(chunk, at);
      } else if (exchange.requestDone || exchange.end === undefined) {
        this.#keep(at === 0 ? chunk : chunk.subarray(at));
        return;
      } else {
        at = this.#readBody(exchange, chunk, at);
      }
    }
  }

  #keep(bytes: Buffer): void {
    this.#waiting = bytes;
    this.#caller.pause();
  }

  #begin(request: TakenIn): void {
    const { asked, taken, bytes, headBytes } = request;
    const { routes, ready } = this.#options;
    const refused = this.#refused;
    this.#refused = undefined;
    this.#outcome = routes.began(asked, taken, { bytes, headBytes, read: readAsked });
    const isRefused = refused !== undefined && sameIntercept(refused, taken);
    if (isRefused) this.#outcome.leftToApplication(ready?.reason ?? "");
    const decided = isRefused ? undefined : taken;
    const exchange = new Exchange(request, decided, this.#options.copy(request));
    this.#outcome.copiedTo(exchange.copies?.records);
    this.#exchange = exchange;
    if (routes.isAgents(asked)) this.#answerProbe(exchange);
    else this.#send(exchange);
  }

  #readBody(exchange: Exchange, chunk: Buffer, at: number): number {
    const { body } = exchange;
    const next = body.take(chunk, at);
    if (body.unclear !== undefined) {
      this.#requestBroke(exchange, chunk.subarray(at));
      return chunk.length;
    }
    const whole = at === 0 && next === chunk.length;
    if (!exchange.send(whole ? chunk : chunk.subarray(at, next))) this.#caller.pause();
    if (body.done) {
      exchange.endRequest();
      if (exchange.answer.done) this.#finish(exchange);
    }
    return next;
  }

  /** Reads what waits, then the caller again, unless something holds that up. */
  #readOn(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined && !this.#over) this.#consume(waiting);
    if (this.#callerEnded) this.#passCallerEnd();
    if (this.#over || this.#waiting !== undefined) return;
    const end = this.#exchange?.end;
    const opening = this.#exchange !== undefined && end === undefined;
    if (!this.#over && !opening && end?.duplex.writableNeedDrain !== true) this.#caller.resume();
  }

  #passCallerEnd(): void {
    if (this.#over) return;
    if (this.#waiting !== undefined) {
      this.#passLeftOver(this.#waiting);
    } else if (this.#exchange !== undefined) {
      this.#exchange.cutShort();
      if (this.#exchange.answer.done) this.#finish(this.#exchange);
      else this.#exchange.end?.duplex.end();
    } else if (!this.#intake.isEmpty) {
      this.#intake.finish();
      if (this.#exchange !== undefined) this.#passCallerEnd();
    } else {
      this.#closeAll();
    }
  }

  /** What waits when the caller has ended, and is no request, need not wait: an application may want it, and the end. */
  #passLeftOver(waiting: Buffer): void {
    const exchange = this.#exchange;
    if (exchange?.end === undefined || exchange.end.taken !== undefined || recogniseHttp(waiting) === "http1") return;
    this.#relay(exchange.answer.held);
    this.#join(exchange.end);
  }

  // ---- to an end

  #send(exchange: Exchange): void {
    const end = this.#ends.ready(exchange);
    if (end === undefined) void this.#open(exchange);
    else this.#sendTo(exchange, end);
  }

  #sendTo(exchange: Exchange, end: HttpEnd): void {
    if (!exchange.sendTo(end)) this.#caller.pause();
  }

  /** Never rejects. */
  async #open(exchange: Exchange): Promise<void> {
    const { taken } = exchange;
    this.#caller.pause();
    try {
      const duplex = await this.#ends.open(taken);
      if (this.#over) {
        duplex.destroy();
        return;
      }
      this.#sendTo(exchange, this.#ends.adopt(duplex, taken));
      this.#readOn();
    } catch (error) {
      if (this.#over) return;
      if (taken === undefined) this.#cut(error);
      else this.#onLaptopRefused(exchange, taken, toAppError(error));
    }
  }

  #onLaptopRefused(exchange: Exchange, taken: Taken, reason: AppError): void {
    if (isAppError(reason, "refused") && taken.onRefused === "fail") {
      this.#answerInstead(exchange, notTaken(reason.message));
      return;
    }
    this.#log("request left to the application", taken, reason);
    this.#outcome?.leftToApplication(reason.message);
    exchange.takeBack(undefined);
    this.#send(exchange);
    if (exchange.end !== undefined) this.#readOn();
  }

  /** The laptop has the request, and its answer will not come. */
  #onAnswerLost(exchange: Exchange, end: HttpEnd, error: AppError): void {
    const { taken } = exchange;
    this.#ends.forget(end);
    if (!exchange.repeatable || taken === undefined) {
      this.#answerInstead(exchange, answerLost(exchange.request.method, error.message));
      return;
    }
    // A process closes connections that were idle: that says nothing about whether it is there.
    const again = end.used && !exchange.retried && this.#options.routes.isCurrent(taken);
    exchange.retried = true;
    this.#log(again ? "request sent again" : "request left to the application", taken, error);
    if (!again) this.#outcome?.leftToApplication(error.message);
    exchange.takeBack(again ? taken : undefined);
    this.#send(exchange);
    if (exchange.end !== undefined) this.#readOn();
  }

  // ---- from an end

  onBytes(end: HttpEnd, bytes: Buffer): void {
    const exchange = this.#exchange;
    if (exchange?.end !== end) {
      this.#onUnasked(end, bytes);
      return;
    }
    const state = exchange.answer.read(bytes, this.#relay, this.#retiredMs !== undefined && end.taken !== undefined);
    if (state === "more") return;
    if (state === "stream") {
      this.#join(end);
      return;
    }
    const rest = bytes.subarray(exchange.answer.restAt);
    if (exchange.requestDone) this.#finish(exchange);
    if (rest.length > 0 && !this.#over) this.#onUnasked(end, rest);
    if (!this.#over) this.#readOn();
  }

  readonly #relay = (bytes: Buffer): void => {
    if (!this.#caller.write(bytes)) this.#exchange?.end?.duplex.pause();
  };

  /** Bytes that answer nothing: the application's are the caller's to understand, as without us. */
  #onUnasked(end: HttpEnd, bytes: Buffer): void {
    const heard = this.#exchange === undefined || this.#exchange.end === end;
    if (end.taken === undefined && heard && this.#ends.callerFollowsApplication) {
      this.#caller.write(bytes);
      this.#join(end);
      return;
    }
    this.#ends.forget(end);
    end.reset();
  }

  onEnd(end: HttpEnd): void {
    const exchange = this.#exchange;
    if (exchange?.end !== end) {
      const callersToo = end.taken === undefined && exchange === undefined && this.#ends.callerFollowsApplication;
      this.#ends.drop(end);
      if (callersToo) this.#closeAll();
      return;
    }
    const { answer } = exchange;
    if (answer.untilClose || answer.done) {
      // Its end is the answer's; the rest of the request may still be wanted.
      if (exchange.requestDone) this.#closeAll();
      else this.#caller.end();
    } else if (end.taken === undefined) {
      this.#relay(answer.held);
      this.#closeAll();
    } else {
      end.reset();
      this.onFailure(end, new AppError("peer_reset", "the process closed the connection"));
    }
  }

  onFailure(end: HttpEnd, error: Error): void {
    const exchange = this.#exchange;
    if (exchange?.end !== end) {
      const callersToo = end.taken === undefined && exchange === undefined && this.#ends.callerFollowsApplication;
      this.#ends.forget(end);
      if (callersToo) this.#cut(error);
    } else if (end.taken === undefined || exchange.answer.head !== undefined) {
      this.#cut(error);
    } else {
      this.#onAnswerLost(exchange, end, toAppError(error));
    }
  }

  onDrain(end: HttpEnd): void {
    if (this.#exchange?.end === end && this.#waiting === undefined) this.#caller.resume();
  }

  // ---- the end of an exchange, and of the connection

  #finish(exchange: Exchange): void {
    const { end, answer, request } = exchange;
    this.#exchange = undefined;
    if (end === undefined || answer.head === undefined) return;
    this.#ends.answered(end);
    this.#outcome?.answered(answer.head.status);
    this.#idleSinceMs = this.#options.clock.now();
    // The application closes by itself when it means to; a laptop's closing is not heard by the caller.
    const closes = end.taken !== undefined && !(staysOpen(request) && staysOpen(answer.head) && !answer.saidClose);
    if (closes || this.#callerEnded || this.#caller.writableEnded) this.#closeAll();
    else this.routesChanged();
  }

  /** Neither the laptop nor the application can answer. */
  #answerInstead(exchange: Exchange, text: string): void {
    this.#options.log.info("request answered by the agent", { method: exchange.request.method, reason: text });
    this.#outcome?.answeredByAgent(502, text);
    this.#answer(exchange, 502, `telepresence: ${text}`);
  }

  #answerProbe(exchange: Exchange): void {
    this.#outcome?.answeredByAgent(200);
    this.#answer(exchange, 200, "answered by the traffic-agent");
  }

  #answer(exchange: Exchange, status: 200 | 502, text: string): void {
    const close = !exchange.requestDone || !staysOpen(exchange.request);
    exchange.copies?.callerLeft(); // if not all of it has come, no more will
    this.#exchange = undefined;
    this.#caller.write(encodeAnswer(exchange.request, { status, text, close }));
    if (close) this.#linger();
    else this.#readOn();
  }

  /** The request's body cannot be told from what follows it. */
  #requestBroke(exchange: Exchange, rest: Buffer): void {
    const { end } = exchange;
    if (end === undefined) return;
    if (end.taken === undefined) {
      end.duplex.write(rest); // it answers what it would without us
      this.#join(end);
    } else if (exchange.answer.head === undefined) {
      const text = "telepresence: the request's body is malformed";
      this.#outcome?.answeredByAgent(400, "the request's body is malformed");
      this.#caller.write(encodeAnswer(exchange.request, { status: 400, text, close: true }));
      this.#linger();
    } else {
      this.#cut(new AppError("protocol", "the request's body is malformed"));
    }
  }

  /** The caller gets to read the answer before its connection is cut: closing with bytes unread would reset it. */
  #linger(): void {
    const caller = this.#caller;
    const busy = this.#exchange?.end;
    this.#leave();
    this.#ends.finishAll(busy);
    caller.end();
    const timer = this.#options.clock.after(lingerMs, () => caller.destroy()).unref();
    caller.once("close", () => timer[Symbol.dispose]());
    caller.once("end", () => caller.destroySoon());
    caller.resume();
  }

  #closeAll(): void {
    const status = this.#exchange?.answer.head?.status;
    if (status === undefined) this.#outcome?.cut("the connection was closed without an answer");
    else this.#outcome?.answered(status);
    this.#leave();
    this.#ends.finishAll();
    this.#caller.destroySoon();
  }

  #cut(error: unknown): void {
    const reason = toAppError(error).message;
    this.#options.log.debug("connection cut", { reason });
    this.#outcome?.cut(reason);
    this.#leave();
    this.#ends.finishAll(this.#exchange?.end);
    this.#caller.resetAndDestroy();
  }

  /** From here on not messages but bytes, both ways, until both have ended. */
  #join(end: HttpEnd): void {
    this.#outcome?.answered(this.#exchange?.answer.head?.status);
    this.#exchange?.becomeStream(this.#caller, this.#waiting);
    this.#leave();
    this.#ends.forget(end);
    this.#ends.finishAll();
    const duplex = end.detach();
    if (end.taken === undefined && duplex instanceof Socket) this.#options.onPassed(duplex);
    if (this.#waiting !== undefined) duplex.write(this.#waiting);
    end.taken?.opener.hold(duplex);
    joinDuplex(this.#caller, duplex);
  }

  /** The application gets what is not understood, with all that follows. */
  #giveUp(reason: string): void {
    this.#options.log.debug("connection not understood", { reason });
    this.#outcome = this.#options.routes.gaveUp(`its requests cannot be read: ${reason}`);
    this.#waiting = this.#intake.held;
    void this.#joinApplication();
  }

  /** Never rejects. */
  async #joinApplication(): Promise<void> {
    this.#intake.stop();
    this.#caller.pause();
    try {
      const end = this.#ends.readyApplication() ?? this.#ends.adopt(await this.#ends.open(undefined), undefined);
      if (this.#over) this.#ends.drop(end);
      else this.#join(end);
    } catch (error) {
      if (!this.#over) this.#cut(error);
    }
  }

  #leave(): void {
    this.#over = true;
    this.#intake.stop();
    this.#exchange?.copies?.callerLeft();
    const caller = this.#caller;
    caller.off("data", this.#onCallerBytes).off("end", this.#onCallerEnd);
    caller.off("close", this.#onCallerClose).off("drain", this.#onCallerDrain);
  }

  #log(what: string, taken: Taken, reason: AppError): void {
    this.#options.log.info(what, { interceptId: taken.interceptId, reason: reason.message });
  }
}
