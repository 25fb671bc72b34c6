// What is kept of the exchanges of one's own intercepts, while somebody looks at them; oldest first out.
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { HeaderField } from "#http/head.ts";
import { Exchange } from "./exchange.ts";
import type { ExchangeTimes, Origin, RequestLine, Route } from "./exchange.ts";
import { readAlong } from "./tap.ts";
import type { ExchangeSink } from "./tap.ts";

export interface RecorderLimits {
  readonly exchanges: number;
  readonly bytes: number;
  /** Of one body. */
  readonly bodyBytes: number;
}

/** chosen: a morning's work; the page shows as many without effort. */
export const usualLimits: RecorderLimits = { exchanges: 10_000, bytes: 128 * 1024 * 1024, bodyBytes: 1024 * 1024 };

interface Beginning {
  readonly route: Route;
  readonly line: RequestLine;
  readonly fields: readonly HeaderField[];
  readonly origin: Origin;
}

/** A connection that nobody reads yet. */
interface Unread {
  readonly caller: Duplex;
  readonly process: Duplex;
  readonly sink: ExchangeSink;
}

interface Kept {
  readonly exchange: Exchange;
  /** By the monotonic clock. */
  readonly beganAt: number;
  /** Its share of what is counted in all. */
  countedBytes: number;
}

export class Recorder {
  readonly #clock: Clock;
  readonly #limits: RecorderLimits;
  /** By id, in the order of their beginning. */
  readonly #kept = new Map<number, Kept>();
  readonly #unread = new Set<Unread>();
  readonly #listeners = new Set<(exchange: Exchange) => void>();
  #bytes = 0;
  #lastId = 0;
  #isOn = false;

  constructor(clock: Clock, limits: RecorderLimits = usualLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** From here on connections are read along, those that stand from their next request on. */
  start(): void {
    this.#isOn = true;
    for (const { caller, process, sink } of this.#unread) readAlong(caller, process, sink, false);
    this.#unread.clear();
  }

  /** Forgets everything; connections under way are read on into nothing. */
  stop(): void {
    this.#isOn = false;
    this.clear();
  }

  clear(): void {
    for (const { exchange } of this.#kept.values()) exchange.forget();
    this.#kept.clear();
    this.#bytes = 0;
  }

  get isOn(): boolean {
    return this.#isOn;
  }
  get bytes(): number {
    return this.#bytes;
  }
  get exchanges(): IteratorObject<Exchange> {
    return this.#kept.values().map(({ exchange }) => exchange);
  }
  /** What is older is forgotten. */
  get oldestId(): number {
    const { value } = this.#kept.keys().next();
    return value ?? this.#lastId + 1;
  }
  find(id: number): Exchange | undefined {
    return this.#kept.get(id)?.exchange;
  }

  /** Hears of each exchange that began or changed. Dispose to stop. */
  onChange(listener: (exchange: Exchange) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** Both are joined already; not one of their bytes has been read. */
  tap(route: Route, caller: Duplex, process: Duplex, origin: Origin = { answeredBy: "laptop" }): void {
    const sink: ExchangeSink = {
      begin: (line, fields) => this.#begin({ route, line, fields, origin }),
      mark: (exchange, time) => this.#mark(exchange, time),
      changed: (exchange) => this.#changed(exchange),
    };
    if (this.#isOn) {
      readAlong(caller, process, sink);
      return;
    }
    const unread = { caller, process, sink };
    this.#unread.add(unread);
    process.once("close", () => this.#unread.delete(unread));
  }

  #begin(known: Beginning): Exchange {
    this.#lastId += 1;
    const startedAt = this.#clock.wallMs();
    const exchange = new Exchange({ ...known, id: this.#lastId, startedAt, maxBodyBytes: this.#limits.bodyBytes });
    if (this.#isOn) {
      this.#kept.set(exchange.id, { exchange, beganAt: this.#clock.now(), countedBytes: 0 });
      this.#changed(exchange);
    } else {
      exchange.forget();
    }
    return exchange;
  }

  #mark(exchange: Exchange, time: keyof ExchangeTimes): void {
    const kept = this.#kept.get(exchange.id);
    if (kept !== undefined) exchange.times[time] ??= this.#clock.now() - kept.beganAt;
    this.#changed(exchange);
  }

  #changed(exchange: Exchange): void {
    const kept = this.#kept.get(exchange.id);
    if (kept === undefined) return;
    exchange.revision += 1;
    const { bytes } = exchange;
    this.#bytes += bytes - kept.countedBytes;
    kept.countedBytes = bytes;
    this.#makeRoom();
    for (const listener of this.#listeners) listener(exchange);
  }

  #makeRoom(): void {
    for (const [id, { exchange, countedBytes }] of this.#kept) {
      if (this.#kept.size <= this.#limits.exchanges && this.#bytes <= this.#limits.bytes) return;
      this.#bytes -= countedBytes;
      this.#kept.delete(id);
      exchange.forget();
    }
  }
}
