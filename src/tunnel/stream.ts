// One stream of a session (PROTOCOL §5, §6) as a Node Duplex. The session brings frames in, the outbox takes bytes out.
//
//   writer → Writable → #pending ── takeBytes() when the outbox gives a turn and the far end gave credit → DATA
//   DATA → #received → Readable → reader; handing bytes to the Readable is what gives credit back
//
// Invariants: #received and the Readable never hold more than the window we gave (receive-window.ts); the Readable asks
// for bytes only when its reader does (high-water mark 0), so credit means that somebody took them.
import { Duplex } from "node:stream";
import { AppError, ProtocolError, isAppError, toAppError } from "#base/error.ts";
import { initialWindowBytes, maxDatagramBytes } from "#wire/limits.ts";
import { resetCodes } from "#wire/open.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import type { Sender } from "./outbox.ts";
import type { ReceiveWindow } from "./receive-window.ts";
import type { TunnelStream } from "./tunnel.ts";

/** What a stream asks of its session. */
export interface StreamHost {
  openWindow(): ReceiveWindow;
  /** Streams that wait for their turn. */
  readonly senderCount: number;
  sendReady(stream: SessionStream): void;
  sendCredit(stream: SessionStream, bytes: number): void;
  sendDatagram(stream: SessionStream, datagram: Uint8Array): void;
  /** The stream ended before both halves were closed. */
  sendReset(stream: SessionStream, reason: ResetReason, message: string): void;
  /** Nothing more will come or go. */
  release(stream: SessionStream): void;
}

/** chosen: bytes a writer may have waiting before `write` says false. */
const writeBufferBytes = 64 * 1024;
/** chosen: the same for bulk that nobody else waits beside, where there is credit for it. */
const bulkBufferBytes = 256 * 1024;
/** protocol: more credit than this is an error. */
const maxSendWindowBytes = 2 ** 31 - 1;
/** chosen: small payloads that wait for their reader are joined into blocks of this size. */
const joinBytes = 16 * 1024;

const noBytes = new Uint8Array(0);

interface Pending {
  readonly chunks: readonly Uint8Array[];
  index: number;
  offset: number;
  readonly done: (error?: Error | null) => void;
}

type WriteCallback = (error?: Error | null) => void;

export class SessionStream extends Duplex implements TunnelStream, Sender {
  readonly id: number;
  readonly request: OpenRequest;
  readonly #host: StreamHost;
  #released = false;

  #sendWindow = initialWindowBytes;
  #pending: Pending | undefined;
  #pendingBytes = 0;
  /** END is to be sent behind everything that was written. */
  #endDue = false;
  #endSent = false;

  readonly #received: Uint8Array[] = [];
  #receivedBytes = 0;
  /** Where small payloads are joined: `#tail` is the filled part of `#tailBlock` while it is last in `#received`. */
  #tailBlock: Uint8Array = noBytes;
  #tail: Uint8Array = noBytes;
  readonly #window: ReceiveWindow;
  /** Given to the Readable, and not yet known to have left it. */
  #handedBytes = 0;
  #readerWaits = false;
  #endReceived = false;
  #endPassedOn = false;
  #datagramHandler: ((datagram: Uint8Array) => void) | undefined;

  constructor(id: number, request: OpenRequest, host: StreamHost) {
    super({ allowHalfOpen: true, readableHighWaterMark: 0, writableHighWaterMark: writeBufferBytes });
    this.id = id;
    this.request = request;
    this.#host = host;
    this.#window = host.openWindow();
    // A reset can arrive in the tick before the owner has a listener; that must end the stream, not the process.
    // Everybody who listens still hears it.
    this.on("error", () => undefined);
    // A flow has no bytes to read, but its 'end' must come all the same.
    if (carriesDatagrams(request)) this.resume();
  }

  /** The accepter has answered: from now on both may send. */
  start(): void {
    if (!carriesDatagrams(this.request)) this.#giveCredit(this.#window.open());
  }

  // ---- towards the far end

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: WriteCallback): void {
    this.#enqueue([chunk], chunk.length, done);
  }

  override _writev(items: readonly { chunk: Uint8Array }[], done: WriteCallback): void {
    const chunks = items.map((item) => item.chunk);
    let bytes = 0;
    for (const chunk of chunks) bytes += chunk.length;
    this.#enqueue(chunks, bytes, done);
  }

  /**
   * At once, like a socket whose kernel says FIN when it can: Node's wrapper around a Duplex, which its HTTP/2 and TLS go
   * through, throws where nobody can catch it when they write while an end is awaited.
   */
  override _final(done: WriteCallback): void {
    this.#endDue = true;
    this.#host.sendReady(this);
    done();
  }

  get sendableBytes(): number {
    return Math.min(this.#pendingBytes, this.#sendWindow);
  }

  /**
   * What a quick writer should have waiting, also after `write` has said false: alone on its link, bulk leaves in large
   * frames so. Beyond the usual, no more than what the far end takes for certain.
   */
  get wantedBytes(): number {
    return this.#host.senderCount > 1 ? writeBufferBytes : Math.min(bulkBufferBytes, this.#sendWindow);
  }

  takeBytes(count: number, pieces: Uint8Array[]): void {
    let left = count;
    while (left > 0 && this.#pending !== undefined) left -= this.#takeFrom(this.#pending, left, pieces);
  }

  takeEnd(): boolean {
    if (!this.#endDue || this.#pendingBytes > 0) return false;
    this.#endDue = false;
    this.#endSent = true;
    this.#releaseWhenOver();
    return true;
  }

  sendDatagram(datagram: Uint8Array): boolean {
    if (this.destroyed || this.writableEnded || datagram.length > maxDatagramBytes) return false;
    this.#host.sendDatagram(this, datagram);
    return true;
  }

  onDatagram(handler: (datagram: Uint8Array) => void): void {
    this.#datagramHandler = handler;
  }

  // ---- from the far end

  /** DATA. Throws a ProtocolError when the far end sends what it has no credit for. */
  receive(payload: Uint8Array): void {
    if (this.#endReceived) throw misbehaved(`stream ${this.id} got DATA after END`);
    if (payload.length > this.#window.leftBytes) {
      throw misbehaved(`stream ${this.id} got ${payload.length} bytes, expected at most ${this.#window.leftBytes}`);
    }
    this.#window.arrived(payload.length);
    if (this.#readerWaits && this.#received.length === 0) this.#handToReader(payload);
    else this.#keep(payload);
  }

  receiveEnd(): void {
    if (this.#endReceived) throw misbehaved(`stream ${this.id} got END twice`);
    this.#endReceived = true;
    this.#window.end(this.receivedBytes);
    this.#passEndOn();
    this.#releaseWhenOver();
  }

  receiveCredit(bytes: number): void {
    if (bytes === 0 || this.#sendWindow + bytes > maxSendWindowBytes) {
      throw misbehaved(
        `stream ${this.id} got a credit of ${bytes}, expected 1 to ${maxSendWindowBytes - this.#sendWindow}`,
      );
    }
    this.#sendWindow += bytes;
    if (this.#pendingBytes > 0) this.#host.sendReady(this);
  }

  /** False when nobody listens. */
  receiveDatagram(payload: Uint8Array): boolean {
    if (this.#datagramHandler === undefined || this.destroyed) return false;
    this.#datagramHandler(payload);
    return true;
  }

  /** The far end's RESET, or the session's end: nothing is said back. */
  cut(error: AppError): void {
    this.#release();
    this.destroy(error);
  }

  /** This end's own reset, also of a stream that its owner has done with while END is still to be sent. */
  reset(error: AppError): void {
    this.destroy(error);
    if (!this.#released) this.#sayReset(error);
  }

  override _read(): void {
    this.#settleHanded();
    this.#readerWaits = true;
    for (;;) {
      const chunk = this.#received.shift();
      if (chunk === undefined) break;
      this.#receivedBytes -= chunk.length;
      this.#handToReader(chunk);
      if (!this.#readerWaits) return;
    }
    this.#passEndOn();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const isOver = error === null && this.#endDue && this.readableEnded; // only END is still to be sent
    if (!this.#released && !isOver) this.#sayReset(error);
    this.#received.length = 0;
    this.#receivedBytes = 0;
    this.#handedBytes = 0;
    this.#window.end(0);
    this.#pendingBytes = 0;
    const pending = this.#pending;
    this.#pending = undefined;
    const failed = error ?? new AppError("cancelled", "the stream was ended before its bytes were sent");
    pending?.done(failed);
    done(error);
  }

  /** Bytes that wait for the reader. */
  get receivedBytes(): number {
    return this.#receivedBytes + this.#handedBytes;
  }

  #enqueue(chunks: readonly Uint8Array[], bytes: number, done: WriteCallback): void {
    if (bytes === 0) {
      done();
      return;
    }
    // Writable hands over the next chunk only after `done`, so there is never more than one.
    this.#pending = { chunks, index: 0, offset: 0, done };
    this.#pendingBytes = bytes;
    if (this.#sendWindow > 0) this.#host.sendReady(this);
  }

  #takeFrom(pending: Pending, limit: number, pieces: Uint8Array[]): number {
    const chunk = pending.chunks[pending.index] ?? noBytes;
    const count = Math.min(limit, chunk.length - pending.offset);
    if (count > 0) pieces.push(count === chunk.length ? chunk : chunk.subarray(pending.offset, pending.offset + count));
    this.#sendWindow -= count;
    this.#pendingBytes -= count;
    pending.offset += count;
    if (pending.offset === chunk.length) {
      pending.index += 1;
      pending.offset = 0;
    }
    if (this.#pendingBytes === 0) {
      this.#pending = undefined;
      pending.done();
    }
    return count;
  }

  /** Joins small payloads, so that a slow reader's queue costs about what its bytes do. */
  #keep(payload: Uint8Array): void {
    this.#receivedBytes += payload.length;
    if (payload.length > joinBytes / 4) {
      // A view of a chunk twice as long would hold all of it.
      this.#received.push(payload.length * 2 < payload.buffer.byteLength ? Buffer.from(payload) : payload);
      return;
    }
    const last = this.#received.length - 1;
    const joins = last >= 0 && this.#received[last] === this.#tail;
    const fits = joins && this.#tail.length + payload.length <= this.#tailBlock.length;
    const start = fits ? this.#tail.length : 0;
    const end = start + payload.length;
    // No longer than what may come: thousands of small windows must not hold a whole block each.
    if (!fits) this.#tailBlock = Buffer.allocUnsafeSlow(Math.min(joinBytes, end + this.#window.leftBytes));
    this.#tailBlock.set(payload, start);
    this.#tail = this.#tailBlock.subarray(0, end);
    if (fits) this.#received[last] = this.#tail;
    else this.#received.push(this.#tail);
  }

  #handToReader(chunk: Uint8Array): void {
    this.#readerWaits = false; // `_read` may be called from inside push
    this.#handedBytes += chunk.length;
    if (this.push(chunk)) this.#readerWaits = true;
    this.#settleHanded();
  }

  /** What the Readable was given and does not hold any more, somebody took. */
  #settleHanded(): void {
    const takenBytes = this.#handedBytes - this.readableLength;
    if (takenBytes <= 0) return;
    this.#handedBytes -= takenBytes;
    this.#giveCredit(this.#window.taken(takenBytes, this.receivedBytes));
  }

  #giveCredit(bytes: number): void {
    if (bytes > 0 && !this.#released) this.#host.sendCredit(this, bytes);
  }

  #passEndOn(): void {
    if (!this.#endReceived || this.#endPassedOn || this.#received.length > 0 || this.destroyed) return;
    this.#endPassedOn = true;
    this.push(null);
  }

  #sayReset(error: Error | null): void {
    const reason = error === null ? "cancelled" : resetReasonOf(error);
    this.#host.sendReset(this, reason, error === null ? "" : messageOf(error));
    this.#release();
  }

  #releaseWhenOver(): void {
    if (this.#endSent && this.#endReceived) this.#release();
  }

  #release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#host.release(this);
  }
}

function carriesDatagrams(request: OpenRequest): boolean {
  return (
    request.kind === "udp" || request.kind === "echo" || (request.kind === "inbound" && request.protocol === "udp")
  );
}

function misbehaved(message: string): ProtocolError {
  return new ProtocolError(message, resetCodes.protocol);
}

/** The reset code that tells the far end why; codes that are not the wire's travel as `internal`. */
export function resetReasonOf(error: unknown): ResetReason {
  if (isAppError(error)) return Object.hasOwn(resetCodes, error.code) ? (error.code as ResetReason) : "internal";
  return reasonsByErrno[(error as NodeJS.ErrnoException).code ?? ""] ?? "internal";
}

const reasonsByErrno: Readonly<Record<string, ResetReason>> = {
  ECONNRESET: "peer_reset",
  EPIPE: "peer_reset",
  ERR_STREAM_PREMATURE_CLOSE: "peer_reset",
  ECONNREFUSED: "refused",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  ENOTFOUND: "unreachable",
  EAI_AGAIN: "unreachable",
  ETIMEDOUT: "timeout",
  ABORT_ERR: "cancelled",
};

/** Texts of our own errors travel; others may hold what is nobody's business. */
function messageOf(error: unknown): string {
  return isAppError(error) ? toAppError(error).message : "";
}
