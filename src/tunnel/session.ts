// A session: streams over a link (PROTOCOL §3–7). Frames come in from the link and go out through its outbox; this file
// is the state machine between them.
//
//   open() ─ OPEN ─▶ opening ─ OPEN_OK ─▶ open ─ END both ways, or RESET ─▶ gone
//   OPEN ─▶ offered ─ accept() ─ OPEN_OK ─▶ open ─ …
//
// Invariants: a stream is in exactly one of #openings, #offers and #streams; a misbehaving far end ends its stream or
// this session, never the process; every wait ends when the session does, which is when its transport does unless both
// ends can resume it.
import type { Duplex } from "node:stream";
import { raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, ProtocolError, invariant, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { decodeOpen, decodeReason, decodeUint32, encodeOpen } from "#wire/frame-body.ts";
import { encodeReason, encodeUint32, orderlyGoaway } from "#wire/frame-body.ts";
import type { Reason } from "#wire/frame-body.ts";
import { formatFrameType, frameTypes } from "#wire/frame.ts";
import type { Frame, FrameType } from "#wire/frame.ts";
import type { Hello } from "#wire/hello.ts";
import { laptopBudgetBytes, maxStreams } from "#wire/limits.ts";
import { resetCodes } from "#wire/open.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";
import { endTransport, exchangeHello } from "./handshake.ts";
import type { Handshake } from "./handshake.ts";
import { Link } from "./link.ts";
import { Offer } from "./offer.ts";
import { Openings, wireError } from "./openings.ts";
import type { Outbox } from "./outbox.ts";
import { ReceiveBudget, ReceiveWindow } from "./receive-window.ts";
import type { Pace, ReceiveLimits } from "./receive-window.ts";
import { askToContinue, canResume, resumptionOf } from "./resumption.ts";
import type { Resumption } from "./resumption.ts";
import { SessionStream, resetReasonOf } from "./stream.ts";
import type { StreamHost } from "./stream.ts";
import type { IncomingStream, TransportEvents, TunnelSession, TunnelStream } from "./tunnel.ts";

export interface OpenSessionOptions {
  /** Ordered bytes both ways; the session owns it from here on. One with `_writev` gets each batch in one call. */
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
  /** Those of a laptop when left out. */
  readonly limits?: ReceiveLimits;
}

/** Exchanges HELLOs and resolves with the session. On failure the transport is destroyed. */
export function openSession(options: OpenSessionOptions): Promise<TunnelSession> {
  return exchangeHello<TunnelSession>(options, (handshake) => {
    // Only an accepter names sessions, and this one keeps none (resumable-sessions.ts does).
    const named = options.role === "opener" && canResume(options.hello, handshake.peer);
    const resumption = named ? resumptionOf(handshake.peer.resume) : undefined;
    return new Session(options, handshake, resumption);
  });
}

export class Session implements TunnelSession, StreamHost, Pace {
  readonly peer: Hello;
  readonly closed: Promise<AppError | undefined>;
  readonly #resolveClosed: (error: AppError | undefined) => void;
  readonly #hello: Hello;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #link: Link;
  readonly #outbox: Outbox;
  /** How the session is known to both ends; undefined where it ends with its transport. */
  readonly #resumption: Resumption | undefined;
  #transportEvents: TransportEvents | undefined;
  /** The owner was told that there is no transport. */
  #isLost = false;
  readonly #openings: Openings;
  readonly #offers = new Map<number, Offer>();
  readonly #streams = new Map<number, SessionStream>();
  readonly #maxStreams: number;
  readonly #budget: ReceiveBudget;
  /** Streams that are gone for the far end while their readers have not taken all. */
  #unreadStreams = 0;
  #onIncoming: ((incoming: IncomingStream) => void) | undefined;
  #nextId: number;
  #lastPeerId = 0;
  #droppedDatagrams = 0;
  #over = false;
  #closing = false;
  #goaway: Reason | undefined;

  constructor(options: OpenSessionOptions, handshake: Handshake, resumption: Resumption | undefined) {
    const { promise, resolve } = Promise.withResolvers<AppError | undefined>();
    this.closed = promise;
    this.#resolveClosed = resolve;
    this.peer = handshake.peer;
    this.#hello = options.hello;
    this.#clock = options.clock;
    const limits = options.limits ?? { maxStreams, budgetBytes: laptopBudgetBytes };
    this.#maxStreams = limits.maxStreams;
    this.#budget = new ReceiveBudget(limits);
    this.#log = options.log.child({ peer: handshake.peer.role });
    this.#nextId = options.role === "opener" ? 1 : 2;
    this.#resumption = resumption;
    this.#link = new Link({
      clock: options.clock,
      resumable: resumption !== undefined,
      onFrame: (frame) => this.#onFrame(frame),
      onLost: (message, cause) => this.#transportEnded(message, cause),
      onFailure: (error) => this.#fail(error),
    });
    this.#outbox = this.#link.outbox;
    this.#openings = new Openings({
      clock: options.clock,
      giveUp: (id, reason) => this.#say(frameTypes.reset, id, reason, ""),
      onSettled: () => this.#endIfDrained(),
    });
    this.#link.attach(options.transport, handshake.rest, 0);
    this.#log.info("session opened", { software: handshake.peer.software, version: handshake.agreement.version });
  }

  get roundTripMs(): number | undefined {
    return this.#link.roundTripMs;
  }
  get leastRoundTripMs(): number | undefined {
    return this.#link.leastRoundTripMs;
  }
  get silentMs(): number | undefined {
    return this.#link.silentMs;
  }
  get streamCount(): number {
    return this.#streams.size;
  }
  get keptBytes(): number {
    let bytes = this.#outbox.keptBytes;
    for (const { writableLength } of this.#streams.values()) bytes += writableLength;
    return bytes;
  }
  get droppedDatagrams(): number {
    return this.#droppedDatagrams + this.#outbox.droppedDatagrams;
  }

  // ---- for the owner

  async open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream> {
    signal.throwIfAborted();
    this.#checkMayOpen();
    const body = encodeOpen(request);
    const id = this.#nextId;
    this.#nextId += 2;
    const waiting = this.#openings.wait(id, request, signal);
    this.#outbox.control(frameTypes.open, id, body);
    return waiting;
  }

  onIncoming(handler: (incoming: IncomingStream) => void): void {
    invariant(this.#onIncoming === undefined, "a session has one handler of incoming streams");
    this.#onIncoming = handler;
    for (const offer of this.#offers.values()) this.#present(handler, offer); // came before the handler
  }

  async close(signal: AbortSignal): Promise<void> {
    if (this.#link.transport === undefined) this.destroy(); // nobody to drain with
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
    const cancelled = this.#closing ? undefined : new AppError("cancelled", "the session was ended");
    if (error !== undefined) this.#fail(error);
    // The far end would wait for another transport.
    else if (cancelled !== undefined && this.resumable) this.#fail(cancelled);
    else this.#finish(cancelled);
  }

  // ---- for streams

  nowMs(): number {
    return this.#clock.now();
  }
  openWindow(): ReceiveWindow {
    return new ReceiveWindow(this.#budget, this);
  }

  get senderCount(): number {
    return this.#outbox.senderCount;
  }

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
    this.#say(frameTypes.reset, stream.id, reason, message);
  }
  release(stream: SessionStream): void {
    this.#outbox.forget(stream);
    this.#streams.delete(stream.id);
    if (stream.receivedBytes > 0 && !stream.destroyed) {
      this.#unreadStreams += 1;
      stream.once("close", () => (this.#unreadStreams -= 1));
    }
    this.#endIfDrained();
  }

  // ---- transports

  get resumable(): boolean {
    return this.#resumption !== undefined;
  }

  onTransport(events: TransportEvents): void {
    invariant(this.#transportEvents === undefined, "a session has one listener for its transports");
    this.#transportEvents = events;
  }

  async resume(transport: Duplex, signal: AbortSignal): Promise<void> {
    const resumption = this.#resumption;
    invariant(resumption !== undefined, "this session ends with its transport");
    if (this.#over) transport.destroy(); // which ends the exchange below
    const left = this.#link.detach();
    const { role } = this.peer;
    const { receivedSeq } = this.#link;
    const how = { transport, left, hello: this.#hello, expectRole: role, receivedSeq, clock: this.#clock, signal };
    await askToContinue(resumption, how, (rest, seq) => this.continueOn(transport, rest, seq));
    if (this.#over) throw new AppError("link_lost", "the session is over");
  }

  probe(patienceMs: number): Promise<boolean> {
    return this.#link.probe(patienceMs);
  }

  /**
   * The accepter's side of it: nothing more is read from the transport before; the next follows at once, so nobody is
   * told. The number of the last frame that came.
   */
  stopReading(): number {
    this.#link.detach()?.destroy();
    return this.#link.receivedSeq;
  }

  continueOn(transport: Duplex, rest: Uint8Array, receivedSeq: number): void {
    if (this.#over) transport.destroy();
    else this.#link.attach(transport, rest, receivedSeq);
    if (this.#over) return; // before, or by what the far end said
    this.#log.info("session resumed", { epoch: this.#resumption?.epoch });
    if (!this.#isLost) return;
    this.#isLost = false;
    this.#transportEvents?.resumed();
  }

  #transportEnded(message: string, cause?: Error): void {
    const lost = new AppError("link_lost", message, { cause });
    if (this.#resumption !== undefined && !this.#closing && this.#goaway === undefined) {
      this.#log.info("session lost its connection", { error: message });
      this.#isLost = true;
      this.#transportEvents?.lost(lost);
      return;
    }
    const orderly = this.#goaway !== undefined || (this.#closing && this.#streamTotal() === 0);
    this.#finish(orderly ? undefined : lost);
  }

  // ---- frames

  readonly #handlers: Readonly<Partial<Record<FrameType, (frame: Frame) => void>>> = {
    [frameTypes.open]: (frame) => this.#onOpen(frame),
    [frameTypes.openOk]: (frame) => this.#onOpenOk(frame),
    [frameTypes.reject]: (frame) => this.#onReject(frame),
    [frameTypes.data]: (frame) => this.#forStream(frame, (stream) => stream.receive(frame.payload)),
    [frameTypes.end]: (frame) => this.#forStream(frame, (stream) => stream.receiveEnd()),
    [frameTypes.reset]: (frame) =>
      this.#forStream(frame, (stream) => stream.cut(wireError(decodeReason(frame.payload)))),
    [frameTypes.credit]: (frame) =>
      this.#forStream(frame, (stream) => stream.receiveCredit(decodeUint32(frame.payload))),
    [frameTypes.datagram]: (frame) =>
      this.#forStream(frame, (stream) => {
        if (!stream.receiveDatagram(frame.payload)) this.#droppedDatagrams += 1;
      }),
    [frameTypes.goaway]: (frame) => this.#onGoaway(decodeReason(frame.payload)),
  };

  #onFrame(frame: Frame): void {
    if (!this.#over) this.#handlers[frame.type]?.(frame);
  }

  #onOpen(frame: Frame): void {
    const id = frame.streamId;
    if (this.#isOurs(id)) throw malformed(`OPEN names stream ${id}, which is this end's to open`);
    if (id <= this.#lastPeerId) throw malformed(`OPEN names stream ${id}, expected more than ${this.#lastPeerId}`);
    this.#lastPeerId = id;
    if (this.#closing) {
      this.#say(frameTypes.reject, id, "busy", "the link is closing");
      return;
    }
    if (this.#isFull()) {
      this.#say(frameTypes.reject, id, "busy", `${this.#maxStreams} streams are open, expected fewer`);
      return;
    }
    try {
      this.#offer(id, decodeOpen(frame.payload));
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      const reason = error.wireCode === resetCodes.unsupported ? "unsupported" : "protocol";
      this.#say(frameTypes.reject, id, reason, error.message);
    }
  }

  #offer(id: number, request: OpenRequest): void {
    const offer = new Offer(request, {
      accept: () => this.#accept(id, offer),
      reject: (reason, message) => {
        this.#offers.delete(id);
        this.#say(frameTypes.reject, id, reason, message);
        this.#endIfDrained();
      },
    });
    this.#offers.set(id, offer);
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
    if (!this.#offers.delete(id)) {
      stream.cut(toAppError(offer.signal.reason));
      return stream;
    }
    this.#streams.set(id, stream);
    this.#outbox.control(frameTypes.openOk, id);
    stream.start();
    return stream;
  }

  #onOpenOk(frame: Frame): void {
    const make = (request: OpenRequest): TunnelStream => {
      const stream = new SessionStream(frame.streamId, request, this);
      this.#streams.set(frame.streamId, stream);
      stream.start();
      return stream;
    };
    if (!this.#openings.accepted(frame.streamId, make)) this.#checkAnswerLate(frame);
  }

  #onReject(frame: Frame): void {
    const error = wireError(decodeReason(frame.payload));
    if (!this.#openings.refused(frame.streamId, error)) this.#checkAnswerLate(frame);
  }

  /** Nobody waits for this answer: given up meanwhile, or never asked for. */
  #checkAnswerLate(frame: Frame): void {
    const names = `${formatFrameType(frame.type)} names stream ${frame.streamId}`;
    if (!this.#isOurs(frame.streamId)) throw malformed(`${names}, which is not this end's`);
    if (this.#streams.has(frame.streamId)) throw malformed(`${names}, which is open`);
    this.#checkOpened(frame);
  }

  /** Delivers; what goes wrong about one stream costs that stream. */
  #forStream(frame: Frame, deliver: (stream: SessionStream) => void): void {
    const stream = this.#streams.get(frame.streamId);
    if (stream === undefined) {
      this.#onFrameWithoutStream(frame);
      return;
    }
    try {
      deliver(stream);
    } catch (error) {
      // The far end's fault, or a listener's of ours that threw: neither is the other streams'.
      const known = toAppError(error);
      this.#log.warn("stream reset", { streamId: stream.id, code: known.code, error: known.message });
      stream.reset(known);
    }
  }

  #onFrameWithoutStream(frame: Frame): void {
    const { streamId, type } = frame;
    this.#checkOpened(frame);
    if (this.#openings.has(streamId)) throw malformed(`${formatFrameType(type)} before OPEN_OK of stream ${streamId}`);
    const offer = this.#offers.get(streamId);
    if (offer === undefined) return; // on its way when the stream ended
    this.#offers.delete(streamId);
    if (type === frameTypes.reset) {
      offer.abort(wireError(decodeReason(frame.payload)));
    } else {
      const message = `${formatFrameType(type)} before the stream was accepted`;
      this.#say(frameTypes.reject, streamId, "protocol", message);
      offer.abort(malformed(message));
    }
    this.#endIfDrained();
  }

  #isOurs(streamId: number): boolean {
    return streamId % 2 === this.#nextId % 2;
  }

  /** Frames may come late, for a stream that is gone, but not for one that never was. */
  #checkOpened(frame: Frame): void {
    const { streamId } = frame;
    if (this.#isOurs(streamId) ? streamId < this.#nextId : streamId <= this.#lastPeerId) return;
    throw malformed(`${formatFrameType(frame.type)} names stream ${streamId}, which was never opened`);
  }

  #onGoaway(goaway: Reason): void {
    this.#goaway = goaway;
    if (goaway.reason !== undefined) this.#finish(wireError(goaway));
  }

  #say(type: FrameType, streamId: number, reason: ResetReason, message: string): void {
    this.#outbox.control(type, streamId, encodeReason(resetCodes[reason], message));
  }

  // ---- the end

  #streamTotal(): number {
    return this.#streams.size + this.#openings.size + this.#offers.size;
  }

  /** What was never read counts too, or a far end that opens, sends and ends could fill the memory. */
  #isFull(): boolean {
    return this.#streamTotal() + this.#unreadStreams >= this.#maxStreams;
  }

  #checkMayOpen(): void {
    if (this.#over) throw new AppError("link_lost", "the link is down");
    if (this.#closing || this.#goaway !== undefined) throw new AppError("link_lost", "the link is closing");
    if (this.#isFull()) throw new AppError("busy", `${this.#maxStreams} streams are open, expected fewer`);
    if (this.#nextId > 0xffff_ffff) throw new AppError("busy", "the session has used up its stream numbers");
  }

  #endIfDrained(): void {
    if (this.#closing && !this.#over && this.#streamTotal() === 0) this.#outbox.end();
  }

  /** Ends in error, and tells the far end why if the transport takes it. */
  #fail(error: AppError): void {
    if (this.#over) return;
    this.#say(frameTypes.goaway, 0, resetReasonOf(error), error.message);
    this.#outbox.flushLast();
    this.#finish(error, (transport) => endTransport(transport, this.#clock));
  }

  #finish(error: AppError | undefined, end = (transport: Duplex): unknown => transport.destroy()): void {
    if (this.#over) return;
    this.#over = true;
    const transport = this.#link.stop();
    const lost = error ?? new AppError("link_lost", "the link was closed");
    this.#openings.refuseAll(lost);
    for (const offer of this.#offers.values()) offer.abort(lost);
    this.#offers.clear();
    for (const stream of this.#streams.values()) stream.cut(lost);
    if (transport !== undefined) end(transport);
    this.#log.info("session ended", error === undefined ? {} : { code: error.code, error: error.message });
    this.#resolveClosed(error);
  }
}

function malformed(message: string): ProtocolError {
  return new ProtocolError(message, resetCodes.protocol);
}
