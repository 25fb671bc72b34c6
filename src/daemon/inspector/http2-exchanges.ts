// A connection of HTTP/2 as exchanges: one for each stream.
import type { HeaderField } from "#http/head.ts";
import type { Exchange } from "./exchange.ts";
import { FrameReader } from "./http2-frames.ts";
import type { ConnectionReader, ExchangeSink } from "./tap.ts";

/** RFC 9113 §3.4. */
const prefaceBytes = 24;

export class Http2Exchanges implements ConnectionReader {
  readonly #sink: ExchangeSink;
  readonly #open = new Map<number, Exchange>();
  readonly #caller: FrameReader;
  readonly #process: FrameReader;

  constructor(sink: ExchangeSink) {
    this.#sink = sink;
    this.#caller = new FrameReader(
      {
        headers: (id, fields, isLast) => this.#request(id, fields, isLast),
        data: (id, bytes, isLast) => this.#requestData(id, bytes, isLast),
        reset: (id) => this.#cut(id),
        tableSize: (bytes) => this.#process.allowTable(bytes),
      },
      prefaceBytes,
    );
    this.#process = new FrameReader(
      {
        headers: (id, fields, isLast) => this.#answer(id, fields, isLast),
        data: (id, bytes, isLast) => this.#answerData(id, bytes, isLast),
        reset: (id) => this.#cut(id),
        tableSize: (bytes) => this.#caller.allowTable(bytes),
      },
      0,
    );
  }

  fromCaller(bytes: Buffer): void {
    this.#caller.read(bytes);
    if (this.#caller.isOver) this.#giveUp("unread");
  }

  fromProcess(bytes: Buffer): void {
    this.#process.read(bytes);
    if (this.#process.isOver) this.#giveUp("unread");
  }

  callerEnded(): void {
    // 'gone' follows: streams end by their own marks
  }

  processEnded(): void {
    // as above
  }

  gone(): void {
    this.#giveUp("cut");
  }

  #request(id: number, fields: readonly HeaderField[], isLast: boolean): void {
    let exchange = this.#open.get(id);
    if (exchange === undefined) {
      const pseudo = (name: string): string => fields.find((field) => field.name === name)?.value ?? "";
      const host = pseudo(":authority") || pseudo("host");
      const line = { method: pseudo(":method"), target: pseudo(":path"), host, version: "HTTP/2" } as const;
      exchange = this.#sink.begin(line, withoutPseudo(fields));
      this.#open.set(id, exchange);
    }
    if (isLast) this.#sink.mark(exchange, "requestEnd");
  }

  #requestData(id: number, bytes: Buffer, isLast: boolean): void {
    const exchange = this.#open.get(id);
    if (exchange === undefined) return;
    exchange.requestBody.add(bytes);
    this.#sink.changed(exchange);
    if (isLast) this.#sink.mark(exchange, "requestEnd");
  }

  #answer(id: number, fields: readonly HeaderField[], isLast: boolean): void {
    const exchange = this.#open.get(id);
    if (exchange === undefined) return;
    const status = fields.find((field) => field.name === ":status");
    if (status === undefined) exchange.answerTrailers = fields;
    else if (!status.value.startsWith("1")) {
      exchange.status = Number(status.value);
      exchange.answerFields = withoutPseudo(fields);
      this.#sink.mark(exchange, "answerStart");
    }
    if (isLast) this.#done(id, exchange);
  }

  #answerData(id: number, bytes: Buffer, isLast: boolean): void {
    const exchange = this.#open.get(id);
    if (exchange === undefined) return;
    exchange.answerBody.add(bytes);
    this.#sink.changed(exchange);
    if (isLast) this.#done(id, exchange);
  }

  #done(id: number, exchange: Exchange): void {
    this.#open.delete(id);
    exchange.state = "done";
    this.#sink.mark(exchange, "answerEnd");
  }

  #cut(id: number): void {
    const exchange = this.#open.get(id);
    if (exchange === undefined) return;
    this.#open.delete(id);
    exchange.state = "cut";
    this.#sink.changed(exchange);
  }

  #giveUp(state: "cut" | "unread"): void {
    for (const exchange of this.#open.values()) {
      exchange.state = state;
      this.#sink.changed(exchange);
    }
    this.#open.clear();
  }
}

function withoutPseudo(fields: readonly HeaderField[]): readonly HeaderField[] {
  return fields.filter(({ name }) => !name.startsWith(":"));
}
