// The tunnel's contract: what daemon, manager and agent hold in their hands. The implementation is session.ts (frames,
// credit, heart-beat) and stream.ts; everything here works over any ordered byte Duplex.
import type { Duplex } from "node:stream";
import type { AppError } from "#base/error.ts";
import type { Hello } from "#wire/hello.ts";
import type { OpenRequest, ResetReason } from "#wire/open.ts";

/**
 * One stream: a Node Duplex with `allowHalfOpen`. `end()` sends the half-close, 'end' is the far end's;
 * `destroy(error)` resets (an AppError's code travels); a reset from the far end is an 'error' with an AppError.
 * Credit goes back when the reader has taken the bytes. What is written must not be changed afterwards: it is passed
 * on, not copied. A `for await` over the stream destroys its writing half too, as with every Duplex.
 */
export interface TunnelStream extends Duplex {
  readonly id: number;
  readonly request: OpenRequest;
  /** UDP flows: false when the datagram was dropped because the queue is full. */
  sendDatagram(datagram: Uint8Array): boolean;
  /** The handler must not keep the bytes. */
  onDatagram(handler: (datagram: Uint8Array) => void): void;
}

/** A stream that the far end wants; exactly one of accept and reject must follow, in any later tick. */
export interface IncomingStream {
  readonly request: OpenRequest;
  /** Aborts when the far end gave up or the session ended before an answer. */
  readonly signal: AbortSignal;
  accept(): TunnelStream;
  reject(reason: ResetReason, message: string): void;
}

/** Of a session that can be resumed. */
export interface TransportEvents {
  /** The session stands, and waits for another transport; its streams stand still. */
  lost(reason: AppError): void;
  /** It was lost, and goes on. A change from a transport that works to another is not told. */
  resumed(): void;
}

export interface TunnelSession {
  readonly peer: Hello;
  /**
   * Resolves when the far end accepted. Rejects with an AppError whose code is the ResetReason's (`refused`,
   * `unreachable`, `timeout`, `denied`, …) or `link_lost`, or with the signal's reason.
   */
  open(request: OpenRequest, signal: AbortSignal): Promise<TunnelStream>;
  /** One handler; OPENs that come before it is set wait. */
  onIncoming(handler: (incoming: IncomingStream) => void): void;
  /** Resolves, never rejects, when the session is over: undefined after an orderly close. */
  readonly closed: Promise<AppError | undefined>;
  /** Median of the last heart-beats' round trips, milliseconds; undefined before the first. */
  readonly roundTripMs: number | undefined;
  /** Milliseconds since anything was heard of the far end; undefined while there is no transport. */
  readonly silentMs: number | undefined;
  /** Open streams. */
  readonly streamCount: number;
  /** Datagrams dropped here since the session began, because their queue was full or nobody listened. */
  readonly droppedDatagrams: number;
  /** What waits to be sent, or sent again; counted when asked for. */
  readonly keptBytes: number;
  /** Whether both ends keep the session when its transport is lost. */
  readonly resumable: boolean;
  /** One listener. */
  onTransport(events: TransportEvents): void;
  /**
   * For the opener of a resumable session: leaves the present transport, if there is one, and goes on here. Rejects and
   * destroys this transport when that fails; with `not_found` when the far end does not know the session any more.
   */
  resume(transport: Duplex, signal: AbortSignal): Promise<void>;
  /**
   * Asks the far end now, behind everything that was sent. False when nothing is heard of it for `patienceMs` before it
   * answers: this transport is of no use, or very slow. True as well when the transport is lost meanwhile.
   */
  probe(patienceMs: number): Promise<boolean>;
  /** No new streams; waits for the open ones until the signal aborts, then cuts. */
  close(signal: AbortSignal): Promise<void>;
  destroy(error?: AppError): void;
}
