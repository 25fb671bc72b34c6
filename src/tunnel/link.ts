// The link below a session (PROTOCOL §4.3, §6.3, §6.5): numbered frames over one transport at a time. A transport that
// is lost takes nothing with it where the session can be resumed: what was under way is kept by the outbox and sent
// again on the next one, from the first frame that the far end has not got.
// Invariants: a frame is handed on once, in order; nothing that an earlier transport still says is heard.
import type { Duplex } from "node:stream";
import { formatDuration } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import { decodeUint32, encodeUint32 } from "#wire/frame-body.ts";
import { FrameDecoder, frameTypes, isSequenced } from "#wire/frame.ts";
import type { Frame } from "#wire/frame.ts";
import { Heartbeat } from "./heartbeat.ts";
import { Outbox } from "./outbox.ts";
import { Sequence } from "./sequence.ts";
import { countChunks } from "./young-garbage.ts";

export interface LinkOptions {
  readonly clock: Clock;
  /** What was sent is kept until it is acknowledged, so that another transport can go on. */
  readonly resumable: boolean;
  /** Frames of the session and its streams; ACK, PING and PONG are the link's own. */
  readonly onFrame: (frame: Frame) => void;
  /** The transport is of no use any more, and destroyed. */
  readonly onLost: (message: string, cause?: Error) => void;
  /** The far end violates the protocol, or asks for more than this end holds. */
  readonly onFailure: (error: AppError) => void;
}

export class Link {
  readonly outbox: Outbox;
  readonly #options: LinkOptions;
  readonly #sequence = new Sequence();
  #transport: Duplex | undefined;
  #heartbeat: Heartbeat | undefined;
  #roundTripMs: number | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.outbox = new Outbox({
      onSent: () => this.#heartbeat?.sent(),
      onOverflow: (bytes) =>
        options.onFailure(new AppError("busy", `${bytes} bytes wait for a far end that does not read`)),
    });
  }

  get transport(): Duplex | undefined {
    return this.#transport;
  }
  get roundTripMs(): number | undefined {
    return this.#heartbeat?.roundTripMs ?? this.#roundTripMs;
  }
  /** When nothing else was on the way; undefined while that is not known. */
  get leastRoundTripMs(): number | undefined {
    return this.#heartbeat?.leastRoundTripMs;
  }
  /** Undefined while there is no transport. */
  get silentMs(): number | undefined {
    return this.#heartbeat?.silentMs;
  }
  /** False when nothing is heard of the far end for so long; true as well where there is no transport to judge. */
  probe(patienceMs: number): Promise<boolean> {
    return this.#heartbeat?.probe(patienceMs) ?? Promise.resolve(true);
  }
  /** Number of the last sequenced frame that came. */
  get receivedSeq(): number {
    return this.#sequence.received;
  }

  /** Goes on here. `rest` came after the HELLO; the far end has got every frame up to `receivedSeq`. */
  attach(transport: Duplex, rest: Uint8Array, receivedSeq: number): void {
    this.#transport = transport;
    const decoder = new FrameDecoder();
    const isCurrent = (): boolean => this.#transport === transport;
    const lost = (message: string, cause?: Error): void => {
      if (!isCurrent()) return;
      this.detach();
      transport.destroy();
      this.#options.onLost(message, cause);
    };
    let block: ArrayBufferLike | undefined;
    const receive = (chunk: Uint8Array): void => {
      if (!isCurrent()) return;
      this.#heartbeat?.heard();
      countChunks(2 * chunk.length); // this one, and the payloads that are put together from it
      // Node reads TLS into blocks that its connections share, and begins another whenever one without TLS has read.
      if (chunk.buffer !== block) countChunks((block = chunk.buffer).byteLength);
      try {
        decoder.push(chunk, (frame) => {
          if (isCurrent()) this.#onFrame(frame);
        });
      } catch (error) {
        this.#options.onFailure(toAppError(error));
      }
    };
    this.#heartbeat = new Heartbeat({
      clock: this.#options.clock,
      sendPing: (payload) => {
        // A link that is quiet must not make the far end keep what came last.
        if (this.#sequence.owesAck) this.#acknowledge();
        this.outbox.control(frameTypes.ping, 0, payload);
      },
      onSilence: (silentMs) => lost(`the far end has been silent for ${formatDuration(silentMs)}`),
    });
    transport.on("data", receive);
    transport.on("end", () => lost("the far end closed the connection"));
    transport.on("close", () => lost("the connection was closed"));
    transport.on("error", (error: Error) => lost(`the connection failed: ${error.message}`, error));
    try {
      this.#acknowledged(receivedSeq);
    } catch (error) {
      this.#options.onFailure(toAppError(error));
      return;
    }
    this.outbox.attach(transport);
    if (rest.length > 0) receive(rest);
  }

  /** Gives the transport up: nothing more is read from it, nothing more said. */
  detach(): Duplex | undefined {
    const transport = this.#transport;
    this.#roundTripMs = this.roundTripMs;
    this.#heartbeat?.stop();
    this.#heartbeat = undefined;
    this.#transport = undefined;
    this.outbox.detach();
    return transport;
  }

  /** The session is over; the transport is the caller's to end. */
  stop(): Duplex | undefined {
    this.outbox.stop();
    return this.detach();
  }

  #onFrame(frame: Frame): void {
    if (isSequenced(frame.type) && this.#sequence.take(frame)) this.#acknowledge();
    if (frame.type === frameTypes.ack) this.#acknowledged(decodeUint32(frame.payload));
    else if (frame.type === frameTypes.ping) this.outbox.control(frameTypes.pong, 0, frame.payload);
    else if (frame.type === frameTypes.pong) this.#heartbeat?.pong(frame.payload);
    else this.#options.onFrame(frame);
  }

  #acknowledge(): void {
    this.outbox.control(frameTypes.ack, 0, encodeUint32(this.#sequence.takeAck()));
  }

  #acknowledged(seq: number): void {
    this.#sequence.acknowledge(seq, this.outbox.lastSeq);
    this.outbox.acknowledged(seq);
  }
}
