// The messages of one direction of a connection of HTTP/1.1: heads as they are known, bodies without their framing.
import { BodyScanner } from "#http/body-scanner.ts";
import type { BodyLength } from "#http/body-length.ts";
import { HeadScanner } from "#http/head-scanner.ts";
import { Unclear } from "#http/head.ts";

export interface MessageEvents {
  /** The length of the body that follows, Unclear when there is nothing more to be read here. `1xx`: another head follows. */
  head(bytes: Buffer): BodyLength | "1xx" | Unclear;
  body(bytes: Buffer): void;
  end(): void;
}

export class MessageReader {
  readonly #events: MessageEvents;
  readonly #heads = new HeadScanner();
  #body: BodyScanner | undefined;
  #chunks: ChunkData | undefined;
  #over = false;

  constructor(events: MessageEvents) {
    this.#events = events;
  }

  /** No messages follow: a tunnel, or bytes that can be taken in two ways. */
  get isOver(): boolean {
    return this.#over;
  }

  read(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && !this.#over) {
      at = this.#body === undefined ? this.#readHead(chunk, at) : this.#readBody(this.#body, chunk, at);
    }
  }

  /** The sender has ended: a body that lasts until then is whole. */
  ended(): void {
    if (this.#body?.untilClose === true) this.#endMessage();
    this.#over = true;
  }

  #readHead(chunk: Buffer, at: number): number {
    const { heldBytes } = this.#heads;
    const bytes = this.#heads.scan(chunk, at);
    if (bytes === undefined) return chunk.length;
    this.#heads.clear();
    const length = bytes instanceof Unclear ? bytes : this.#events.head(bytes);
    if (length === "tunnel" || length instanceof Unclear || bytes instanceof Unclear) {
      this.#over = true;
      return chunk.length;
    }
    if (length !== "1xx") this.#begin(length);
    return at + bytes.length - heldBytes;
  }

  #begin(length: Exclude<BodyLength, "tunnel">): void {
    this.#body = new BodyScanner(length);
    this.#chunks = length === "chunked" ? new ChunkData() : undefined;
    if (this.#body.done) this.#endMessage();
  }

  #readBody(body: BodyScanner, chunk: Buffer, at: number): number {
    const end = body.take(chunk, at);
    const taken = chunk.subarray(at, end);
    if (this.#chunks === undefined) this.#events.body(taken);
    else this.#chunks.read(taken, (data) => this.#events.body(data));
    if (body.unclear !== undefined) {
      this.#over = true;
      return chunk.length;
    }
    if (body.done) this.#endMessage();
    return end;
  }

  #endMessage(): void {
    this.#body = undefined;
    this.#events.end();
  }
}

/** What a chunked body holds, of bytes whose framing a BodyScanner has already found to be right (RFC 9112 §7.1). */
class ChunkData {
  #line = "";
  /** Data of this chunk still to come, then the two bytes after it. */
  #left = 0;
  #skip = 0;
  #over = false;

  read(bytes: Buffer, take: (data: Buffer) => void): void {
    let at = 0;
    while (at < bytes.length && !this.#over) {
      if (this.#left > 0) {
        const end = Math.min(bytes.length, at + this.#left);
        take(bytes.subarray(at, end));
        this.#left -= end - at;
        if (this.#left === 0) this.#skip = 2;
        at = end;
      } else if (this.#skip > 0) {
        this.#skip -= 1;
        at += 1;
      } else {
        at = this.#readLine(bytes, at);
      }
    }
  }

  #readLine(bytes: Buffer, at: number): number {
    const lineFeed = bytes.indexOf(10, at);
    const end = lineFeed < 0 ? bytes.length : lineFeed;
    if (this.#line.length < 64) this.#line += bytes.toString("latin1", at, Math.min(end, at + 64));
    if (lineFeed < 0) return bytes.length;
    this.#left = Number.parseInt(this.#line, 16); // an extension ends the number
    this.#over = !(this.#left > 0);
    this.#line = "";
    return end + 1;
  }
}
