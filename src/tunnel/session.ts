// A session: streams over one ordered byte transport (PROTOCOL §3–7). Frames come in through the decoder and go out
// through the outbox; this file is the state machine between them.
//
//   OPEN ─▶ opening ─ OPEN_OK ─▶ open ─ END both ways, or RESET ─▶ gone          (opener)
//   OPEN ─▶ offered ─ accept() ─▶ open ─ …                                        (accepter)
//
// Invariants: a stream is in exactly one of #opening, #offered and #streams; a misbehaving far end ends its stream or
// this session, never the process; every wait ends when the transport does.
import type { Duplex } from "node:stream";
import { raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, ProtocolError, invariant, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import {
  decodeOpen,
  decodeReason,
  decodeUint32,
  encodeOpen,
  encodeReason,
  encodeUint32,
  orderlyGoaway,
} from "#wire/frame-body.ts";
import { FrameDecoder, formatFrameType, frameTypes, isSequenced } from "#wire/frame.ts";
import type { Frame } from "#wire/frame.ts";
import type { Hello } from "#wire/hello.ts";
import { maxStreams, openTimeoutMs } from "#wire/limits.ts";
import { resetCodes } from "#wire/open.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import { exchangeHello } from "./handshake.ts";
import type { Handshake } from "./handshake.ts";
import { Heartbeat } from "./heartbeat.ts";
import { Offer } from "./offer.ts";
import { Outbox } from "./outbox.ts";
import { SessionStream, resetReasonOf } from "./stream.ts";
import type { StreamHost } from "./stream.ts";
import type { IncomingStream, TunnelSession, TunnelStream } from "./tunnel.ts";

export interface OpenSessionOptions {
  /** Ordered bytes both ways; the session owns it from here on. A transport with `_writev` is spared copies. */
  readonly transport: Duplex;
  readonly hello: Hello;
  /** The opener speaks first; it numbers its streams odd, the accepter even. */
  readonly role: "opener" | "accepter";
  readonly clock: Clock;
  readonly log: Logger;
  /** Ends the exchange of HELLOs; the session itself is ended by close and destroy. */
  readonly signal: AbortSignal;
  /** Refuses a far end of any other role. */
  readonly expectRole?: Hello["role"];
}

/** Exchanges HELLOs and resolves with the session. On failure the transport is destroyed. */
export function openSession(options: OpenSessionOptions): Promise<TunnelSession> {
  return exchangeHello<TunnelSession>(options, (handshake) => new Session(options, handshake));
}

/** chosen: an ACK is due after so many sequenced frames, or so many bytes of them. */
const ackFrames = 64;
const ackBytes = 256 * 1024;
/** chosen: how long the last words of a session that ends in error may take to leave. */
const farewellMs = 1000;

interface Opening {
  readonly request: OpenRequest;
  readonly resolve: (stream: TunnelStream) => void;
  readonly reject: (error: unknown) => void;
}

class Session implements TunnelSession, StreamHost {
  readonly peer: Hello;
  readonly closed: Promise<AppError | undefined>;
  readonly #resolveClosed: (error: AppError | undefined) => void;
  readonly #transport: Duplex;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #outbox: Outbox;
  readonly #heartbeat: Heartbeat;
  readonly #decoder = new FrameDecoder();

  readonly #streams = new Map<number, SessionStream>();
  readonly #opening = new Map<number, Opening>();
  readonly #offered = new Map<number, Offer>();
  #onIncoming: ((incoming: IncomingStream) => void) | undefined;
  #nextId: number;
  #lastPeerId: number;

  #receivedSeq = 0;
  #ackedSeq = 0;
  #unackedFrames = 0;
  #unackedBytes = 0;
  #droppedDatagrams = 0;

  #over = false;
  #closing = false;
  #goaway: { readonly reason: ResetReason | undefined; readonly message: string } | undefined;

  constructor(options: OpenSessionOptions, handshake: Handshake) {
    const { promise, resolve } = Promise.withResolvers<AppError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.peer = handshake.peer;
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.#log = options.log.child({ peer: handshake.peer.role });
    this.#nextId = options.role === "opener" ? 1 : 2;
    this.#lastPeerId = options.role === "opener" ? 0 : -1;
    this.#outbox = new Outbox({
      transport: this.#transport,
      onSent: () => this.#heartbeat.sent(),
      onOverflow: (bytes) =>
        this.#fail(
          new ProtocolError(`${bytes} bytes of answers wait for a far end that does not read`, resetCodes.busy),
        ),
    });
    this.#heartbeat = new Heartbeat({
      clock: options.clock,
      sendPing: (payload) => this.#outbox.control(frameTypes.ping, 0, payload),
      onSilence: (silentMs) =>
        this.#finish(new AppError("link_lost", `the far end has been silent for ${(silentMs / 1000).toFixed(1)} s`)),
    });
    this.#listen(handshake.rest);
    this.#log.info("session opened", { software: handshake.peer.software, version: handshake.agreement.version });
  }

  get roundTripMs(): number | undefined {
    return this.#heartbeat.roundTripMs;
  }
  get streamCount(): number {
    return this.#streams.size;
  }
  get droppedDatagrams(): number {
    return this.#droppedDatagrams + this.#outbox.droppedDatagrams;
  }

  // ---- for the owner

  open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream> {
    if (signal.aborted) return Promise.reject(signal.reason as Error);
    const refusal = this.#openRefusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    return new Promise<TunnelStream>((resolve, reject) => {
      const body = encodeOpen(request);
      const id = this.#nextId;
      this.#nextId += 2;
      const giveUp = (error: unknown, reason: ResetReason): void => {
        this.#outbox.control(frameTypes.reset, id, encodeReason(resetCodes[reason], ""));
        opening.reject(error);
      };
      const onAbort = (): void => giveUp(signal.reason, "cancelled");
      const timer = this.#clock.after(openTimeoutMs, () =>
        giveUp(new AppError("timeout", `the far end did not answer within ${openTimeoutMs / 1000} s`), "timeout"),
      );
      const settle = (): void => {
        this.#opening.delete(id);
        timer[Symbol.dispose]();
        signal.removeEventListener("abort", onAbort);
        this.#endIfDrained();
      };
      const opening: Opening = {
        request,
        resolve: (stream) => {
          settle();
          resolve(stream);
        },
        reject: (error) => {
          settle();
          reject(error as Error);
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#opening.set(id, opening);
      this.#outbox.control(frameTypes.open, id, body);
    });
  }

  onIncoming(handler: (incoming: IncomingStream) => void): void {
    invariant(this.#onIncoming === undefined, "a session has one handler of incoming streams");
    this.#onIncoming = handler;
    for (const offer of [...this.#offered.values()]) this.#present(handler, offer); // came before the handler
  }

  async close(signal: AbortSignal): Promise<void> {
    if (!this.#closing && !this.#over) {
      this.#closing = true;
      this.#outbox.control(frameTypes.goaway, 0, encodeReason(orderlyGoaway, ""));
      this.#endIfDrained();
    }
    try {
      await raceSignal(this.closed, signal);
    } catch {
      this.destroy(); // the time to drain is over
    }
  }

  destroy(error?: AppError): void {
    if (error === undefined)
      this.#finish(this.#closing ? undefined : new AppError("cancelled", "the session was ended"));
    else this.#fail(error);
  }

  // ---- for streams

  sendReady(stream: SessionStream): void {
    this.#outbox.ready(stream);
  }
  sendCredit(stream: SessionStream, bytes: number): void {
    this.#outbox.control(frameTypes.credit, stream.id, encodeUint32(bytes));
  }
  sendDatagram(stream: SessionStream, datagram: Uint8Array): void {
    this.#outbox.datagram(stream.id, datagram);
  }
  sendReset(stream: SessionStream, reason: ResetReason, message: string): void {
    this.#outbox.control(frameTypes.reset, stream.id, encodeReason(resetCodes[reason], message));
  }
  release(stream: SessionStream): void {
    this.#outbox.forget(stream);
    this.#streams.delete(stream.id);
    this.#endIfDrained();
  }

  // ---- transport

  #listen(rest: Uint8Array): void {
    const transport = this.#transport;
    transport.on("data", (chunk: Uint8Array) => this.#receive(chunk));
    transport.on("end", () => this.#transportEnded("the far end closed the connection"));
    transport.on("close", () => this.#transportEnded("the connection was closed"));
    transport.on("error", (error: Error) => this.#transportEnded(`the connection failed: ${error.message}`, error));
    if (rest.length > 0) this.#receive(rest);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#over) return;
    this.#heartbeat.heard();
    try {
      this.#decoder.push(chunk, (frame) => this.#onFrame(frame));
    } catch (error) {
      this.#fail(toAppError(error));
    }
  }

  #transportEnded(message: string, cause?: Error): void {
    const orderly = this.#goaway !== undefined && this.#goaway.reason === undefined;
    if (orderly || (this.#closing && this.#isDrained())) this.#finish(undefined);
    else if (this.#goaway?.reason !== undefined) this.#finish(wireError(this.#goaway.reason, this.#goaway.message));
    else this.#finish(new AppError("link_lost", message, { cause }));
  }

  // ---- frames

  #onFrame(frame: Frame): void {
    if (this.#over) return;
    if (isSequenced(frame.type)) this.#count(frame);
    switch (frame.type) {
      case frameTypes.open:
        this.#onOpen(frame);
        break;
      case frameTypes.openOk:
        this.#onOpenOk(frame);
        break;
      case frameTypes.reject:
        this.#onReject(frame);
        break;
      case frameTypes.ack:
        this.#onAck(decodeUint32(frame.payload));
        break;
      case frameTypes.ping:
        this.#outbox.control(frameTypes.pong, 0, frame.payload);
        break;
      case frameTypes.pong:
        this.#heartbeat.pong(frame.payload);
        break;
      case frameTypes.goaway:
        this.#onGoaway(frame);
        break;
      default:
        this.#onStreamFrame(frame);
    }
  }

  #count(frame: Frame): void {
    const expected = (this.#receivedSeq + 1) >>> 0;
    if (frame.seq !== expected) {
      throw malformed(`${formatFrameType(frame.type)} has sequence number ${frame.seq}, expected ${expected}`);
    }
    this.#receivedSeq = expected;
    this.#unackedFrames += 1;
    this.#unackedBytes += frame.payload.length;
    if (this.#unackedFrames < ackFrames && this.#unackedBytes < ackBytes) return;
    this.#unackedFrames = 0;
    this.#unackedBytes = 0;
    this.#outbox.control(frameTypes.ack, 0, encodeUint32(this.#receivedSeq));
  }

  /** Kept for the retransmit buffer of a later version; until then it only has to make sense. */
  #onAck(seq: number): void {
    const sent = (this.#outbox.lastSeq - this.#ackedSeq) >>> 0;
    if ((seq - this.#ackedSeq) >>> 0 > sent) {
      throw malformed(`ACK names ${seq}, expected ${this.#ackedSeq} to ${this.#outbox.lastSeq}`);
    }
    this.#ackedSeq = seq;
  }

  #onOpen(frame: Frame): void {
    const id = frame.streamId;
    if (id % 2 === this.#nextId % 2) throw malformed(`OPEN names stream ${id}, which is this end's to open`);
    if (id <= this.#lastPeerId) throw malformed(`OPEN names stream ${id}, expected more than ${this.#lastPeerId}`);
    this.#lastPeerId = id;
    const reject = (reason: ResetReason, message: string): void =>
      this.#outbox.control(frameTypes.reject, id, encodeReason(resetCodes[reason], message));
    if (this.#closing) return reject("busy", "the session is closing");
    if (this.#streamTotal() >= maxStreams) return reject("busy", `${maxStreams} streams are open, expected fewer`);
    let request: OpenRequest;
    try {
      request = decodeOpen(frame.payload);
    } catch (error) {
      const refusal = error as ProtocolError;
      return reject(refusal.wireCode === resetCodes.unsupported ? "unsupported" : "protocol", refusal.message);
    }
    const offer = new Offer(request, {
      accept: () => this.#accept(id, offer),
      reject: (reason, message) => {
        this.#offered.delete(id);
        reject(reason, message);
        this.#endIfDrained();
      },
    });
    this.#offered.set(id, offer);
    if (this.#onIncoming !== undefined) this.#present(this.#onIncoming, offer);
  }

  /** A handler's bug costs its stream. */
  #present(handler: (incoming: IncomingStream) => void, offer: Offer): void {
    try {
      handler(offer);
    } catch (error) {
      this.#log.error("handler of incoming streams failed", { kind: offer.request.kind, error: String(error) });
      if (!offer.answered) offer.reject("internal", "the far end failed");
    }
  }

  #accept(id: number, offer: Offer): TunnelStream {
    const stream = new SessionStream(id, offer.request, this);
    const live = this.#offered.delete(id);
    if (!live) {
      stream.cut(toAppError(offer.signal.reason));
      return stream;
    }
    this.#streams.set(id, stream);
    this.#outbox.control(frameTypes.openOk, id);
    return stream;
  }

  #onOpenOk(frame: Frame): void {
    const opening = this.#opening.get(frame.streamId);
    if (opening === undefined) {
      this.#checkKnown(frame);
      return;
    }
    const stream = new SessionStream(frame.streamId, opening.request, this);
    this.#streams.set(frame.streamId, stream);
    opening.resolve(stream);
  }

  #onReject(frame: Frame): void {
    const opening = this.#opening.get(frame.streamId);
    if (opening === undefined) {
      this.#checkKnown(frame);
      return;
    }
    const { reason, message } = decodeReason(frame.payload);
    opening.reject(wireError(reason ?? "internal", message));
  }

  #onStreamFrame(frame: Frame): void {
    const stream = this.#streams.get(frame.streamId);
    if (stream === undefined) {
      this.#onFrameWithoutStream(frame);
      return;
    }
    try {
      this.#deliver(stream, frame);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#log.warn("stream reset: the far end broke the protocol", { streamId: stream.id, error: error.message });
      stream.destroy(error);
    }
  }

  #deliver(stream: SessionStream, frame: Frame): void {
    switch (frame.type) {
      case frameTypes.data:
        return stream.receive(frame.payload);
      case frameTypes.end:
        return stream.receiveEnd();
      case frameTypes.credit:
        return stream.receiveCredit(decodeUint32(frame.payload));
      case frameTypes.datagram:
        if (!stream.receiveDatagram(frame.payload)) this.#droppedDatagrams += 1;
        return;
      default: {
        const { reason, message } = decodeReason(frame.payload);
        stream.cut(wireError(reason ?? "internal", message));
      }
    }
  }

  #onFrameWithoutStream(frame: Frame): void {
    this.#checkKnown(frame);
    const offer = this.#offered.get(frame.streamId);
    if (offer !== undefined) {
      // Either the far end gave up, or it sends before it was accepted.
      this.#offered.delete(frame.streamId);
      const { reason } = frame.type === frameTypes.reset ? decodeReason(frame.payload) : { reason: undefined };
      if (frame.type !== frameTypes.reset) {
        const text = `${formatFrameType(frame.type)} before the stream was accepted`;
        this.#outbox.control(frameTypes.reset, frame.streamId, encodeReason(resetCodes.protocol, text));
      }
      offer.abort(new AppError(reason === "timeout" ? "timeout" : "cancelled", "the far end gave up the stream"));
      this.#endIfDrained();
      return;
    }
    const opening = this.#opening.get(frame.streamId);
    if (opening !== undefined)
      throw malformed(`${formatFrameType(frame.type)} before OPEN_OK of stream ${frame.streamId}`);
    // Otherwise it was on its way when the stream ended.
  }

  /** Frames may come late, for a stream that is gone, but not for one that never was. */
  #checkKnown(frame: Frame): void {
    const ours = frame.streamId % 2 === this.#nextId % 2;
    if (ours ? frame.streamId < this.#nextId : frame.streamId <= this.#lastPeerId) return;
    throw malformed(`${formatFrameType(frame.type)} names stream ${frame.streamId}, which was never opened`);
  }

  #onGoaway(frame: Frame): void {
    this.#goaway = decodeReason(frame.payload);
    if (this.#goaway.reason !== undefined) this.#finish(wireError(this.#goaway.reason, this.#goaway.message));
  }

  // ---- the end

  #streamTotal(): number {
    return this.#streams.size + this.#opening.size + this.#offered.size;
  }

  #openRefusal(): AppError | undefined {
    if (this.#over) return new AppError("link_lost", "the link is down");
    if (this.#closing || this.#goaway !== undefined) return new AppError("link_lost", "the link is closing");
    if (this.#streamTotal() >= maxStreams)
      return new AppError("busy", `${maxStreams} streams are open, expected fewer`);
    if (this.#nextId > 0xffff_ffff) return new AppError("busy", "the session has used up its stream numbers");
    return undefined;
  }

  #isDrained(): boolean {
    return this.#streamTotal() === 0;
  }

  #endIfDrained(): void {
    if (this.#closing && !this.#over && this.#isDrained()) this.#outbox.end();
  }

  /** Ends in error, and tells the far end why if the transport takes it. */
  #fail(error: AppError): void {
    if (this.#over) return;
    const transport = this.#transport;
    this.#outbox.control(frameTypes.goaway, 0, encodeReason(resetCodes[resetReasonOf(error)], error.message));
    this.#outbox.flushNow();
    this.#finish(error, () => {
      const timer = this.#clock.after(farewellMs, () => transport.destroy());
      transport.end(() => {
        timer[Symbol.dispose]();
        transport.destroy();
      });
    });
  }

  #finish(error: AppError | undefined, endTransport = (): unknown => this.#transport.destroy()): void {
    if (this.#over) return;
    this.#over = true;
    this.#heartbeat.stop();
    this.#outbox.stop();
    const lost = error ?? new AppError("link_lost", "the link was closed");
    for (const opening of [...this.#opening.values()]) opening.reject(lost);
    for (const offer of this.#offered.values()) offer.abort(lost);
    this.#offered.clear();
    for (const stream of [...this.#streams.values()]) stream.cut(lost);
    endTransport();
    this.#log.info("session ended", error === undefined ? {} : { code: error.code, error: error.message });
    this.#resolveClosed(error);
  }
}

function malformed(message: string): ProtocolError {
  return new ProtocolError(message, resetCodes.protocol);
}

/** A reset code as the error it stands for; every ResetReason is an error code. */
function wireError(reason: ResetReason, message: string): AppError {
  return new AppError(reason, message === "" ? `the far end reset the stream (${reason})` : message);
}
