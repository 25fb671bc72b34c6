// Reads one answer out of the bytes that come back, and says when it is over. What it has read it hands on unchanged and
// at once; only a head is held back until it is whole, and the last one of a connection that we end says so.
import { BodyScanner } from "#http/body-scanner.ts";
import { responseBodyLength } from "#http/body-length.ts";
import { HeadScanner } from "#http/head-scanner.ts";
import { Unclear, parseResponseHead, staysOpen } from "#http/head.ts";
import type { ResponseHead } from "#http/head.ts";

/** `stream`: what follows are no messages any more: an upgrade, a tunnel, or bytes whose end cannot be told. */
export type AnswerState = "more" | "done" | "stream";

type Relay = (bytes: Buffer) => void;
const emptyLine = "\r\n".length;
const closeField = Buffer.from("Connection: close\r\n");

export class AnswerReader {
  readonly #method: string;
  readonly #heads = new HeadScanner();
  #head: ResponseHead | undefined;
  #body: BodyScanner | undefined;
  #restAt = 0;
  #relayedTo = 0;
  #saidClose = false;

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
  /** The caller was told, by us, that the connection ends with this answer. */
  get saidClose(): boolean {
    return this.#saidClose;
  }
  /** A piece of a head that never became whole. */
  get held(): Buffer {
    return this.#heads.held;
  }
  /** Where the last chunk's bytes were no longer the answer's. */
  get restAt(): number {
    return this.#restAt;
  }

  /** Reads a chunk, and relays what of it is to go to the caller, who is told to close where that is the last answer. */
  read(chunk: Buffer, relay: Relay, last = false): AnswerState {
    let at = 0;
    this.#relayedTo = 0;
    while (at < chunk.length && !this.done) {
      const body = this.#body;
      const next = body === undefined ? this.#readHead(chunk, at, relay, last) : this.#readBody(body, chunk, at);
      if (next === "unclear") {
        this.#relayTo(chunk.length, chunk, relay);
        return "stream";
      }
      if (next === "held") break;
      at = next;
    }
    this.#restAt = at;
    this.#relayTo(at, chunk, relay);
    return this.done ? "done" : "more";
  }

  #relayTo(at: number, chunk: Buffer, relay: Relay): void {
    if (at > this.#relayedTo) relay(chunk.subarray(this.#relayedTo, at));
    this.#relayedTo = at;
  }

  #readHead(chunk: Buffer, at: number, relay: Relay, last: boolean): number | "held" | "unclear" {
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
    const next = at + bytes.length - heldBytes;
    if (last && staysOpen(head)) this.#sayClose(chunk, next - emptyLine, relay);
    return next;
  }

  /** Before the final head's empty line, where that is in this chunk as a whole. */
  #sayClose(chunk: Buffer, at: number, relay: Relay): void {
    if (at < 0 || this.#head === undefined) return;
    this.#relayTo(at, chunk, relay);
    relay(closeField);
    this.#saidClose = true;
  }

  #readBody(body: BodyScanner, chunk: Buffer, at: number): number | "unclear" {
    const next = body.take(chunk, at);
    return body.unclear === undefined ? next : "unclear";
  }
}
