// JSON-RPC messages on a byte stream (PROTOCOL §8): `Content-Length: N`, an empty line, N bytes of JSON. Stands in for
// vscode-jsonrpc's own reader and writer, which buffer without bound and read faster than messages are handled.
// Invariants: a length is checked before anything is buffered for it; at most one delivered message waits.
import type { Duplex } from "node:stream";
import { AbstractMessageReader, AbstractMessageWriter, Message } from "vscode-jsonrpc/node";
import type { DataCallback, Disposable, MessageReader, MessageWriter, ResponseMessage } from "vscode-jsonrpc/node";
import { AppError, ProtocolError, toAppError } from "#base/error.ts";
import { resetCodes } from "#wire/open.ts";
import { encodeError } from "./rpc-error.ts";

/** protocol: longest header part of a message. */
const maxHeaderBytes = 1024;
/** chosen: bytes read ahead of the message that is being handled. */
const readAheadBytes = 64 * 1024;
const headerEnd = "\r\n\r\n";

const malformed = (message: string, cause?: unknown): ProtocolError =>
  new ProtocolError(message, resetCodes.protocol, { cause });

/** Cuts bytes into JSON texts, whatever their split. */
export class MessageSplitter {
  readonly #maxMessageBytes: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #bodyBytes: number | undefined;

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Bytes that are here beyond the message that is being received. */
  get aheadBytes(): number {
    return this.#bytes - (this.#bodyBytes ?? 0);
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** The next whole message's body. Throws a ProtocolError at a header that is malformed or promises too much. */
  next(): Buffer | undefined {
    if (this.#bodyBytes === undefined) {
      const bytes = this.#join();
      const end = bytes.subarray(0, maxHeaderBytes).indexOf(headerEnd, 0, "latin1");
      if (end === -1) {
        if (bytes.length >= maxHeaderBytes) throw malformed(`a message header exceeds ${maxHeaderBytes} bytes`);
        return undefined;
      }
      this.#bodyBytes = this.#parseHeader(bytes.toString("latin1", 0, end));
      this.#consume(end + headerEnd.length);
    }
    return this.#bytes < this.#bodyBytes ? undefined : this.#takeBody(this.#bodyBytes);
  }

  #takeBody(length: number): Buffer {
    const body = this.#join().subarray(0, length);
    this.#consume(length);
    this.#bodyBytes = undefined;
    return body;
  }

  #parseHeader(header: string): number {
    const match = /^content-length:[ \t]*(\d{1,10})[ \t]*$/im.exec(header);
    if (match === null) throw malformed("a message header has no Content-Length");
    const length = Number(match[1]);
    if (length > this.#maxMessageBytes) {
      throw malformed(`a message has ${length} bytes, expected at most ${this.#maxMessageBytes}`);
    }
    return length;
  }

  #join(): Buffer {
    const [first] = this.#chunks;
    if (first !== undefined && this.#chunks.length === 1) return first;
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }

  #consume(count: number): void {
    this.#chunks = [this.#join().subarray(count)];
    this.#bytes -= count;
  }
}

export class RpcReader extends AbstractMessageReader implements MessageReader {
  readonly #stream: Duplex;
  readonly #splitter: MessageSplitter;
  readonly #onMalformed: (error: AppError) => void;
  #callback: DataCallback | undefined;
  #delivered = false;
  #stopped = false;

  constructor(stream: Duplex, maxMessageBytes: number, onMalformed: (error: AppError) => void) {
    super();
    this.#stream = stream;
    this.#splitter = new MessageSplitter(maxMessageBytes);
    this.#onMalformed = onMalformed;
  }

  listen(callback: DataCallback): Disposable {
    this.#callback = callback;
    this.#stream.on("data", this.#onData);
    return { dispose: () => this.stop() };
  }

  /** Further bytes are read and thrown away, so that the stream's end is still seen. */
  stop(): void {
    this.#stopped = true;
    this.#stream.off("data", this.#onData);
    this.#stream.resume();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#splitter.push(chunk);
    this.#pump();
    if (!this.#stopped && this.#splitter.aheadBytes > readAheadBytes) this.#stream.pause();
  };

  /** One message a turn of the event loop: vscode-jsonrpc handles one a turn, and queues what comes faster. */
  #pump(): void {
    if (this.#delivered || this.#stopped) return;
    try {
      const body = this.#splitter.next();
      if (body === undefined) {
        if (this.#stream.isPaused()) this.#stream.resume();
        return;
      }
      this.#delivered = true;
      this.#callback?.(parseMessage(body));
    } catch (error) {
      this.#stopped = true;
      this.#onMalformed(toAppError(error));
      return;
    }
    setImmediate(() => {
      this.#delivered = false;
      this.#pump();
    });
  }
}

function parseMessage(body: Buffer): Message {
  let message: unknown;
  try {
    message = JSON.parse(body.toString("utf8"));
  } catch (error) {
    throw malformed("a message is not JSON", error);
  }
  if (typeof message !== "object" || message === null || (message as Message).jsonrpc !== "2.0") {
    throw malformed("a message is not JSON-RPC 2.0");
  }
  return message as Message;
}

export class RpcWriter extends AbstractMessageWriter implements MessageWriter {
  readonly #stream: Duplex;
  readonly #maxMessageBytes: number;

  constructor(stream: Duplex, maxMessageBytes: number) {
    super();
    this.#stream = stream;
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Rejects what is too long or has nowhere to go; a far end that does not read loses the connection. */
  async write(message: Message): Promise<void> {
    const body = Buffer.from(JSON.stringify(message));
    if (body.length > this.#maxMessageBytes) {
      const error = new AppError(
        "internal",
        `a message has ${body.length} bytes, expected at most ${this.#maxMessageBytes}`,
      );
      if (!Message.isResponse(message) || message.error !== undefined) throw error;
      // Its caller would wait for ever.
      await this.write({ jsonrpc: "2.0", id: message.id, error: encodeError(error).toJson() } as ResponseMessage);
      return;
    }
    if (!this.#stream.writable) throw new AppError("link_lost", "the connection is closed");
    if (this.#stream.writableLength > 2 * this.#maxMessageBytes) {
      const error = new AppError("busy", `${this.#stream.writableLength} bytes wait for a far end that does not read`);
      this.#stream.destroy(error);
      throw error;
    }
    this.#stream.write(Buffer.concat([Buffer.from(`Content-Length: ${body.length}${headerEnd}`), body]));
  }

  end(): void {
    this.#stream.end();
  }
}
