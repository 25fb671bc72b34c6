// A connection of HTTP/1.1 as exchanges. Requests may be sent ahead: answers come in their order (RFC 9112 §9.3.2).
import { requestBodyLength, responseBodyLength } from "#http/body-length.ts";
import { Unclear, parseRequestHead, parseResponseHead, valuesOf } from "#http/head.ts";
import type { Exchange } from "./exchange.ts";
import { MessageReader } from "./http1-messages.ts";
import type { ConnectionReader, ExchangeSink } from "./tap.ts";

/** chosen: more requests sent ahead than that are not waited for. */
const maxAhead = 100;

export class Http1Exchanges implements ConnectionReader {
  readonly #sink: ExchangeSink;
  /** Requests whose answer is not whole, oldest first. */
  readonly #waiting: Exchange[] = [];
  #sending: Exchange | undefined;
  readonly #requests: MessageReader;
  readonly #answers: MessageReader;

  constructor(sink: ExchangeSink) {
    this.#sink = sink;
    this.#requests = new MessageReader({
      head: (bytes) => this.#requestHead(bytes),
      body: (bytes) => this.#body(this.#sending, "requestBody", bytes),
      end: () => {
        if (this.#sending !== undefined) this.#sink.mark(this.#sending, "requestEnd");
        this.#sending = undefined;
      },
    });
    this.#answers = new MessageReader({
      head: (bytes) => this.#answerHead(bytes),
      body: (bytes) => this.#body(this.#waiting[0], "answerBody", bytes),
      end: () => this.#answered(),
    });
  }

  fromCaller(bytes: Buffer): void {
    this.#requests.read(bytes);
  }

  fromProcess(bytes: Buffer): void {
    this.#answers.read(bytes);
    if (this.#answers.isOver) this.#giveUp("unread");
  }

  callerEnded(): void {
    this.#requests.ended();
  }

  processEnded(): void {
    this.#answers.ended();
  }

  gone(): void {
    this.#giveUp("cut");
  }

  #body(exchange: Exchange | undefined, which: "requestBody" | "answerBody", bytes: Buffer): void {
    if (exchange === undefined) return;
    exchange[which].add(bytes);
    this.#sink.changed(exchange);
  }

  #requestHead(bytes: Buffer): ReturnType<typeof requestBodyLength> {
    const head = parseRequestHead(bytes);
    if (head instanceof Unclear) return head;
    const length = requestBodyLength(head);
    if (length instanceof Unclear) return length;
    if (this.#waiting.length >= maxAhead) return new Unclear("too many requests are sent ahead");
    const [host = ""] = valuesOf(head, "host");
    const { method, target, minor, fields } = head;
    const version = minor === 1 ? "HTTP/1.1" : "HTTP/1.0";
    this.#sending = this.#sink.begin({ method, target, host, version }, fields);
    this.#waiting.push(this.#sending);
    return length;
  }

  #answerHead(bytes: Buffer): ReturnType<typeof responseBodyLength> | "1xx" {
    const [exchange] = this.#waiting;
    if (exchange === undefined) return new Unclear("an answer that nobody has asked for");
    const head = parseResponseHead(bytes);
    if (head instanceof Unclear) return head;
    if (head.status < 200 && head.status !== 101) return "1xx";
    exchange.status = head.status;
    exchange.answerFields = head.fields;
    this.#sink.mark(exchange, "answerStart");
    const length = responseBodyLength(head, exchange.line.method);
    if (length === "tunnel") this.#answered(); // what follows is no answer any more
    return length;
  }

  #answered(): void {
    const exchange = this.#waiting.shift();
    if (exchange === undefined) return;
    exchange.state = "done";
    this.#sink.mark(exchange, "answerEnd");
  }

  #giveUp(state: "cut" | "unread"): void {
    for (const exchange of this.#waiting.splice(0)) {
      exchange.state = state;
      this.#sink.changed(exchange);
    }
  }
}
