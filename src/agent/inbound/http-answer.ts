// Reads one answer out of the bytes that come back, and says when it is over. What it has read it hands on unchanged and
// at once; only a head is held back until it is whole.
import { BodyScanner } from "#http/body-scanner.ts";
import { responseBodyLength } from "#http/body-length.ts";
import { HeadScanner } from "#http/head-scanner.ts";
import { Unclear, parseResponseHead } from "#http/head.ts";
import type { ResponseHead } from "#http/head.ts";

/** `stream`: what follows are no messages any more: an upgrade, a tunnel, or bytes whose end cannot be told. */
export type AnswerState = "more" | "done" | "stream";

export class AnswerReader {
  readonly #method: string;
  readonly #heads = new HeadScanner();
  #head: ResponseHead | undefined;
  #body: BodyScanner | undefined;
  #restAt = 0;

  constructor(requestMethod: string) {
    this.#method = requestMethod;
  }

  /** The final answer's head, once it is known; interim ones (1xx) do not count. */
  get head(): ResponseHead | undefined {
    return this.#head;
  }
  get done(): boolean {
    return this.#body?.done === true;
  }
  /** Its end is the connection's end. */
  get untilClose(): boolean {
    return this.#body?.untilClose === true;
  }
  /** A piece of a head that never became whole. */
  get held(): Buffer {
    return this.#heads.held;
  }
  /** Where the last chunk's bytes were no longer the answer's. */
  get restAt(): number {
    return this.#restAt;
  }

  /** Reads a chunk, and relays what of it is to go to the caller. */
  read(chunk: Buffer, relay: (bytes: Buffer) => void): AnswerState {
    let at = 0;
    while (at < chunk.length && !this.done) {
      const next = this.#body === undefined ? this.#readHead(chunk, at, relay) : this.#readBody(this.#body, chunk, at);
      if (next === "unclear") {
        relay(chunk);
        return "stream";
      }
      if (next === "held") break;
      at = next;
    }
    this.#restAt = at;
    if (at === chunk.length) relay(chunk);
    else if (at > 0) relay(chunk.subarray(0, at));
    return this.done ? "done" : "more";
  }

  #readHead(chunk: Buffer, at: number, relay: (bytes: Buffer) => void): number | "held" | "unclear" {
    const heads = this.#heads;
    const { heldBytes } = heads;
    const bytes = heads.scan(chunk, at);
    if (bytes === undefined) return "held";
    // What was held comes before this chunk, which is relayed from its beginning.
    if (heldBytes > 0) relay(heads.held);
    heads.clear();
    if (bytes instanceof Unclear) return "unclear";
    const head = parseResponseHead(bytes);
    if (head instanceof Unclear) return "unclear";
    const length = responseBodyLength(head, this.#method);
    if (length === "tunnel" || length instanceof Unclear) {
      this.#head = head;
      return "unclear";
    }
    if (head.status >= 200) {
      this.#head = head;
      this.#body = new BodyScanner(length);
    }
    return at + bytes.length - heldBytes;
  }

  #readBody(body: BodyScanner, chunk: Buffer, at: number): number | "unclear" {
    const next = body.take(chunk, at);
    return body.unclear === undefined ? next : "unclear";
  }
}
