// Reads along on a connection to the local process. Both ends flow already (they are piped into each other); a second
// listener sees the same chunks and delays nothing. On one that somebody began to look at midway, HTTP/1.1 is read from
// the next request on; HTTP/2 never is, since its headers refer to those before.
import type { Duplex } from "node:stream";
import { recogniseHttp } from "#http/recognise.ts";
import type { HeaderField } from "#http/head.ts";
import type { Exchange, ExchangeTimes, RequestLine } from "./exchange.ts";
import { Http1Exchanges } from "./http1-exchanges.ts";
import { Http2Exchanges } from "./http2-exchanges.ts";

/** Where a connection's exchanges go. */
export interface ExchangeSink {
  begin(line: RequestLine, fields: readonly HeaderField[]): Exchange;
  /** Notes the time, once, and tells that it changed. */
  mark(exchange: Exchange, time: keyof ExchangeTimes): void;
  changed(exchange: Exchange): void;
}

/** What makes exchanges of a protocol's bytes. Never throws; what cannot be read is let be. */
export interface ConnectionReader {
  fromCaller(bytes: Buffer): void;
  fromProcess(bytes: Buffer): void;
  callerEnded(): void;
  processEnded(): void;
  /** Both ways are closed, in order or not. */
  gone(): void;
}

/** `caller` and `process` are joined; `fresh` when not one of their bytes has been read yet. */
export function readAlong(caller: Duplex, process: Duplex, sink: ExchangeSink, fresh = true): void {
  const reader = fresh ? new FirstBytes(sink) : new NextRequest(sink);
  caller.on("data", (chunk: Buffer) => reader.fromCaller(chunk));
  process.on("data", (chunk: Buffer) => reader.fromProcess(chunk));
  caller.once("end", () => reader.callerEnded());
  process.once("end", () => reader.processEnded());
  let open = 2;
  for (const end of [caller, process]) {
    end.once("close", () => {
      open -= 1;
      if (open === 0) reader.gone();
    });
  }
}

/** Waits for the beginning of a request: bytes that look like one, after the process has spoken or nobody has. */
class NextRequest implements ConnectionReader {
  readonly #sink: ExchangeSink;
  #callerIsNext = true;
  #reader: Http1Exchanges | undefined;

  constructor(sink: ExchangeSink) {
    this.#sink = sink;
  }

  fromCaller(bytes: Buffer): void {
    if (this.#reader === undefined && this.#callerIsNext && recogniseHttp(bytes) === "http1") {
      this.#reader = new Http1Exchanges(this.#sink);
    }
    this.#reader?.fromCaller(bytes);
    this.#callerIsNext = false;
  }

  fromProcess(bytes: Buffer): void {
    this.#reader?.fromProcess(bytes);
    this.#callerIsNext = true;
  }

  callerEnded(): void {
    this.#reader?.callerEnded();
  }

  processEnded(): void {
    this.#reader?.processEnded();
  }

  gone(): void {
    this.#reader?.gone();
  }
}

/** Finds out what a connection speaks, and hands it on to who can read that. */
class FirstBytes implements ConnectionReader {
  readonly #sink: ExchangeSink;
  #held: Buffer = Buffer.alloc(0);
  /** Servers of HTTP/2 greet before they are asked. */
  #greeting: Buffer[] = [];
  #reader: ConnectionReader | "other" | undefined;

  constructor(sink: ExchangeSink) {
    this.#sink = sink;
  }

  fromCaller(bytes: Buffer): void {
    if (this.#reader === "other") return;
    if (this.#reader !== undefined) return this.#reader.fromCaller(bytes);
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    const protocol = recogniseHttp(this.#held);
    if (protocol === "more") return; // which it says of a line's length at most
    if (protocol === "other") this.#reader = "other";
    else this.#begin(protocol === "http1" ? new Http1Exchanges(this.#sink) : new Http2Exchanges(this.#sink));
    this.#held = Buffer.alloc(0);
    this.#greeting = [];
  }

  fromProcess(bytes: Buffer): void {
    if (this.#reader === "other") return;
    if (this.#reader !== undefined) return this.#reader.fromProcess(bytes);
    this.#greeting.push(bytes);
    if (this.#greeting.length > 4) this.#reader = "other"; // it speaks first, and much
  }

  callerEnded(): void {
    if (this.#reader !== "other") this.#reader?.callerEnded();
  }

  processEnded(): void {
    if (this.#reader !== "other") this.#reader?.processEnded();
  }

  gone(): void {
    if (this.#reader !== "other") this.#reader?.gone();
  }

  #begin(reader: ConnectionReader): void {
    this.#reader = reader;
    reader.fromCaller(this.#held);
    for (const bytes of this.#greeting) reader.fromProcess(bytes);
  }
}
