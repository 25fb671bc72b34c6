// Cuts a connection's bytes into messages with the scanners alone, as the agent's engine does; tests compare what it
// finds over different ways of cutting the input.
import { BodyScanner } from "./body-scanner.ts";
import { requestBodyLength, responseBodyLength } from "./body-length.ts";
import { HeadScanner } from "./head-scanner.ts";
import { Unclear, parseRequestHead, parseResponseHead } from "./head.ts";

export interface Message {
  readonly head: string;
  readonly body: string;
  readonly complete: boolean;
}

export interface Cut {
  readonly messages: readonly Message[];
  /** Why the rest is not a message. */
  readonly unclear: string | undefined;
  readonly rest: string;
  readonly mostHeldBytes: number;
}

/** `methods` are those of the requests that the answers belong to; without them the bytes are requests. */
export function cutMessages(chunks: readonly Buffer[], methods?: readonly string[]): Cut {
  const reader = new Reader(methods);
  for (const chunk of chunks) reader.push(chunk);
  return reader.result();
}

class Reader {
  readonly #methods: readonly string[] | undefined;
  readonly #messages: { head: string; body: string; complete: boolean }[] = [];
  #finals = 0;
  #scanner = new HeadScanner();
  #body: BodyScanner | undefined;
  #unclear: string | undefined;
  #rest = "";
  #most = 0;

  constructor(methods: readonly string[] | undefined) {
    this.#methods = methods;
  }

  push(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#unclear !== undefined) {
        this.#rest += chunk.toString("latin1", at);
        return;
      }
      at = this.#body === undefined ? this.#readHead(chunk, at) : this.#readBody(this.#body, chunk, at);
      this.#most = Math.max(this.#most, this.#scanner.heldBytes);
    }
  }

  result(): Cut {
    const held = this.#scanner.held.toString("latin1");
    return {
      messages: this.#messages,
      unclear: this.#unclear,
      rest: held + this.#rest,
      mostHeldBytes: this.#most,
    };
  }

  #readHead(chunk: Buffer, at: number): number {
    const bytes = this.#scanner.scan(chunk, at);
    if (bytes === undefined) return chunk.length;
    if (bytes instanceof Unclear) {
      this.#unclear = bytes.reason;
      return at;
    }
    const next = at + bytes.length - this.#scanner.heldBytes;
    const length = this.#lengthOf(bytes);
    if (length instanceof Unclear || length === "tunnel") {
      this.#unclear = length === "tunnel" ? "a tunnel" : length.reason;
      this.#scanner.clear();
      this.#rest += bytes.toString("latin1");
      return next;
    }
    this.#scanner.clear();
    const body = new BodyScanner(length);
    this.#messages.push({ head: bytes.toString("latin1"), body: "", complete: body.done });
    this.#body = body.done ? undefined : body;
    return next;
  }

  #readBody(body: BodyScanner, chunk: Buffer, at: number): number {
    const end = body.take(chunk, at);
    const message = this.#messages.at(-1);
    if (message === undefined) throw new Error("a body without a head");
    message.body += chunk.toString("latin1", at, end);
    message.complete = body.done;
    if (body.done) this.#body = undefined;
    if (body.unclear !== undefined) this.#unclear = body.unclear.reason;
    return end;
  }

  #lengthOf(bytes: Buffer): ReturnType<typeof responseBodyLength> {
    if (this.#methods === undefined) {
      const request = parseRequestHead(bytes);
      return request instanceof Unclear ? request : requestBodyLength(request);
    }
    const response = parseResponseHead(bytes);
    if (response instanceof Unclear) return response;
    const length = responseBodyLength(response, this.#methods[this.#finals] ?? "GET");
    if (response.status >= 200) this.#finals += 1;
    return length;
  }
}
