// Lines over a connected Unix socket, with a descriptor beside a line when one is sent: the socket between the user
// daemon and the root helper. Reading is by recvmsg alone, because a plain read would drop descriptors.
//
// Bounds: a line longer than `maxLineBytes` ends the channel, and so does an end that does not read (both ends send
// one message at a time, which fits the socket's buffer, so a full buffer means a stuck peer).
import { AppError } from "#base/error.ts";
import { libc, watchReadable } from "./ffi.ts";
import type { ReadinessWatch } from "./ffi.ts";
import { receiveWithFd, sendWithFd } from "./fd-passing.ts";

const readBytes = 64 * 1024;
const eagain = 11;
const eintr = 4;

export interface UnixChannelHandlers {
  /** A line without its newline. A descriptor that came with it is taken by `takeFd`, or closed with the next. */
  readonly onLine: (line: string) => void;
  /** Once: the peer is gone (no error), or the channel failed. Not after `close`. */
  readonly onEnd: (error: AppError | undefined) => void;
}

export class UnixChannel {
  readonly #fd: number;
  readonly #maxLineBytes: number;
  readonly #handlers: UnixChannelHandlers;
  readonly #watch: ReadinessWatch;
  readonly #into = new Uint8Array(new ArrayBuffer(readBytes));
  #held: Buffer = Buffer.alloc(0);
  #passedFd: number | undefined;
  #closed = false;

  /** Takes the descriptor over: `close` closes it. */
  constructor(fd: number, maxLineBytes: number, handlers: UnixChannelHandlers) {
    this.#fd = fd;
    this.#maxLineBytes = maxLineBytes;
    this.#handlers = handlers;
    this.#watch = watchReadable(fd, () => this.#onReadable());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends one line, with a descriptor beside it. Throws when the channel cannot take it, which then is ended. */
  send(line: string, passedFd?: number): void {
    if (this.#closed) throw new AppError("helper_failed", "the socket to the other end is closed");
    const bytes = Buffer.from(`${line}\n`);
    if (bytes.length > this.#maxLineBytes) {
      throw new AppError("internal", `a message has ${bytes.length} bytes; at most ${this.#maxLineBytes} fit`);
    }
    if (sendWithFd(this.#fd, bytes, passedFd) === bytes.length) return;
    const error = new AppError("helper_failed", "the other end of the helper's socket does not read");
    this.#end(error);
    throw error;
  }

  /** The descriptor that came last; the caller owns it from here on. */
  takeFd(): number | undefined {
    const fd = this.#passedFd;
    this.#passedFd = undefined;
    return fd;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.close();
    this.#dropFd();
    libc().close(this.#fd);
  }

  #onReadable(): void {
    const { length, fd } = receiveWithFd(this.#fd, this.#into);
    if (fd !== undefined) {
      this.#dropFd();
      this.#passedFd = fd;
    }
    if (length > 0) this.#accept(this.#into.subarray(0, length));
    else if (length === 0) this.#end(undefined);
    else if (length !== -eagain && length !== -eintr) this.#end(undefined); // a reset is an end too
  }

  #accept(bytes: Uint8Array): void {
    this.#held = Buffer.concat([this.#held, bytes]);
    for (;;) {
      const newline = this.#held.indexOf(10);
      if (newline === -1) break;
      if (newline >= this.#maxLineBytes) break;
      const line = this.#held.toString("utf8", 0, newline);
      this.#held = this.#held.subarray(newline + 1);
      this.#handlers.onLine(line);
      if (this.#closed) return;
    }
    if (this.#held.length >= this.#maxLineBytes) {
      this.#end(new AppError("protocol", `a line is longer than ${this.#maxLineBytes} bytes`));
    }
  }

  #end(error: AppError | undefined): void {
    if (this.#closed) return;
    this.close();
    this.#handlers.onEnd(error);
  }

  #dropFd(): void {
    const fd = this.takeFd();
    if (fd !== undefined) libc().close(fd);
  }
}
