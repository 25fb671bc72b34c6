// One caller's connection that speaks HTTP/2: each stream is decided by itself, so a connection that was kept open follows
// an intercept and its end at the next request, and streams under way stay where they are. Node's HTTP/2 speaks to the
// caller; header lists, bodies and resets go on as they came.
//
//   caller ──streams──► http2-exchange ──► http2-ends ──► laptop's stream | application's connection
//
// The caller is any Duplex: decrypted bytes of TLS do as well. Who has its address hands in `dialApplication` and
// `openLaptop`, bound to it.
// Invariants: a malformed caller ends its own connection only; when the application goes away its caller is told, as it
// would be without us, and no request is lost by it.
// @from agent/inbound/capture.ts
// @to agent/inbound/http2/http2-ends.ts, agent/inbound/taps/tap-http2.ts
import { performServerHandshake } from "node:http2";
import type { IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { HttpRoutes } from "#agent/inbound/http/http-decision.ts";
import type { ReadyEnd } from "#agent/inbound/http/http-ends.ts";
import { Http2Ends } from "./http2-ends.ts";
import type { ApplicationEvent, Http2EndsOptions } from "./http2-ends.ts";
import { Http2Exchange } from "./http2-exchange.ts";
import { callerLimits, windows } from "./http2-limits.ts";
import { Fields, encodeShutdownNotice } from "./http2-messages.ts";
import type { IdleSession, IdleSessions } from "./idle-sessions.ts";
import { Http2Taps } from "#agent/inbound/taps/tap-http2.ts";
import type { Http2TapsOptions } from "#agent/inbound/taps/tap-http2.ts";

/** chosen: how long a caller may take to answer before it is told that no more streams are taken. */
const noticeMs = 1000;
/** chosen: a caller that keeps a connection on which nothing can come any more is cut. */
const lingerMs = 5000;

const ignore = (): void => undefined;

export interface Http2ConnectionOptions extends Http2EndsOptions, Http2TapsOptions {
  readonly caller: Duplex;
  /** Opened before it was known what the caller speaks. */
  readonly ready: ReadyEnd | undefined;
  readonly routes: HttpRoutes;
  /** Those of all ports. */
  readonly idle: IdleSessions;
  readonly log: Logger;
}

export class Http2Connection implements IdleSession {
  readonly #options: Http2ConnectionOptions;
  readonly #caller: Duplex;
  readonly #ends: Http2Ends;
  readonly #taps: Http2Taps;
  readonly #exchanges = new Set<Http2Exchange>();
  #session: ServerHttp2Session | undefined;
  #ready: ReadyEnd | undefined;
  #laptopAnsweredLast = false;
  #isLeaving = false;

  constructor(options: Http2ConnectionOptions) {
    this.#options = options;
    this.#caller = options.caller;
    this.#ready = options.ready;
    this.#ends = new Http2Ends(options, (event) => this.#onApplication(event));
    this.#taps = new Http2Taps(options);
  }

  /** `first` is what the caller has sent so far. */
  start(first: Buffer): void {
    const { caller, ready } = this.#options;
    if (ready !== undefined) this.#ends.adopt(ready.duplex, ready.taken);
    // It may want to know what the application can do before it asks for anything (RFC 8441 §3).
    else this.#ends.get(undefined).catch(() => undefined); // who needs it asks again
    caller.on("error", () => undefined); // 'close' follows
    caller.once("close", () => {
      this.#options.idle.forget(this);
      this.#ends.closeAll();
      this.#taps.closeAll();
    });
    if (caller.destroyed) {
      this.#ends.closeAll();
      return;
    }
    caller.unshift(first);
    const session = performServerHandshake(caller, callerLimits);
    this.#session = session;
    session.on("error", (error) => this.#options.log.debug("connection of HTTP/2 ended", { reason: error.message }));
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(windows.callerConnectionBytes);
    });
    session.on("stream", this.#onStream);
    this.#options.idle.rest(this);
    // A caller that cannot open windows any more can get no answers either: every server ends its streams then.
    if (caller.readableEnded) session.destroy();
    else caller.once("end", () => session.destroy());
  }

  /** What is intercepted has changed. Streams under way go on. */
  routesChanged(): void {
    this.#ends.dropLaptops(this.#options.routes.isCurrent);
    this.#taps.routesChanged();
  }

  /** The pod is ending, which is said again and again; or there are too many that ask nothing. */
  retire(): void {
    this.#leave();
  }

  readonly #onStream = (
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    _flags: number,
    list: string[],
  ): void => {
    stream.on("error", ignore); // 'close' follows
    if (stream.closed) return; // it was reset in the same breath
    const { routes, idle, clock, log } = this.#options;
    const ready = this.#ready;
    this.#ready = undefined;
    const exchange = new Http2Exchange({
      stream,
      fields: new Fields(list, headers),
      ends: this.#ends,
      taps: this.#taps,
      routes,
      ready,
      onAnswer: this.#onAnswer,
      onApplicationLost: this.#onApplicationLost,
      clock,
      log,
    });
    if (this.#exchanges.size === 0) idle.forget(this);
    this.#exchanges.add(exchange);
    stream.on("close", () => {
      this.#exchanges.delete(exchange);
      if (this.#exchanges.size === 0 && !this.#isLeaving && !this.#caller.destroyed) idle.rest(this);
    });
    exchange.start();
  };

  #onApplication(event: ApplicationEvent): void {
    const session = this.#session;
    if (session === undefined || session.destroyed) return;
    if (event === "takes extended CONNECT") session.settings({ enableConnectProtocol: true });
    else if (!this.#laptopAnsweredLast) this.#leave();
  }

  readonly #onAnswer = ({ taken }: Http2Exchange): void => {
    this.#laptopAnsweredLast = taken !== undefined;
  };

  /** Without us its caller's connection would be cut; streams of a laptop on the same connection go on. */
  readonly #onApplicationLost = (lost: Http2Exchange): void => {
    if ([...this.#exchanges].some(({ taken }) => taken !== undefined)) {
      lost.cut("the application closed the connection");
      return;
    }
    const caller = this.#caller;
    if (caller instanceof Socket && !(caller instanceof TLSSocket)) caller.resetAndDestroy();
    else caller.destroy(new AppError("peer_reset", "the application closed the connection"));
  };

  /** The caller is to open no more streams here. Those that are on their way are taken. */
  #leave(): void {
    const session = this.#session;
    if (this.#isLeaving || session === undefined || session.destroyed) return;
    this.#isLeaving = true;
    // Between two frames of Node's, which writes whole ones. TLS takes no second writer: its callers hear once only.
    if (this.#caller instanceof TLSSocket) {
      this.#close();
      return;
    }
    this.#caller.write(encodeShutdownNotice());
    const timer = this.#options.clock.after(noticeMs, () => this.#close()).unref();
    session.ping(() => {
      timer[Symbol.dispose]();
      this.#close();
    });
  }

  #close(): void {
    const session = this.#session;
    if (session === undefined || session.closed || session.destroyed) return;
    session.close();
    // Node waits for the caller to close as well, however long that takes.
    const timer = this.#options.clock.every(lingerMs, () => {
      if (session.destroyed) this.#caller.destroy();
    });
    timer.unref();
    this.#caller.once("close", () => timer[Symbol.dispose]());
  }
}
