// What a session has to say, in the order it says it: frames of control first, then datagrams and streams in turns.
// Streams keep their own bytes until it is their turn, so a blocked transport brakes each stream's writer and nothing
// piles up here but control frames and the bounded datagram queue.
// What was said is kept until the far end has acknowledged it (send-buffer.ts), and said again on the next transport
// where the session outlives its own.
// Invariant: sequence numbers are given in the order of the bytes on the transport.
import type { Duplex } from "node:stream";
import { encodeHeader, frameHeaderBytes, frameTypes, isSequenced } from "#wire/frame.ts";
import type { FrameType } from "#wire/frame.ts";
import { maxQueuedDatagramBytes, maxUnacknowledgedBytes } from "#wire/limits.ts";
import { SendBuffer } from "./send-buffer.ts";
import { countChunks } from "./young-garbage.ts";

/** A stream as the outbox sees it. */
export interface Sender {
  readonly id: number;
  /** Bytes that credit allows to be sent now. */
  readonly sendableBytes: number;
  /** Moves exactly `count` bytes, at most `sendableBytes`, to `pieces`. */
  takeBytes(count: number, pieces: Uint8Array[]): void;
  /** True once, when all is sent and END is due. */
  takeEnd(): boolean;
}

export interface OutboxOptions {
  /** Something left for the transport. */
  readonly onSent: () => void;
  /** The far end makes us answer more than it reads. */
  readonly onOverflow: (bytes: number) => void;
}

/** chosen: what one write to the transport gathers; also one stream's turn when it is alone. */
const batchBytes = 256 * 1024;
/** chosen: a stream's turn when others wait, so that a bulk stream costs an interactive one a fraction of a batch. */
const sharedTurnBytes = 16 * 1024;
/** chosen: control frames waiting; an honest peer that opens every stream it may stays far below. */
const maxQueuedControlBytes = 16 * 1024 * 1024;
/** chosen: what an entry of the datagram queue costs besides its bytes, so that empty ones are bounded too. */
const datagramOverheadBytes = 64;

interface ControlFrame {
  readonly type: FrameType;
  readonly streamId: number;
  readonly payload: Uint8Array;
}

const noBytes = new Uint8Array(0);

export class Outbox {
  readonly #options: OutboxOptions;
  /** Frames of the link itself, which concern one transport: they overtake. */
  #beats: ControlFrame[] = [];
  #beatBytes = 0;
  #control: ControlFrame[] = [];
  #controlBytes = 0;
  #overflowed = false;
  readonly #datagrams: { readonly streamId: number; readonly payload: Uint8Array }[] = [];
  #datagramBytes = 0;
  #droppedDatagrams = 0;
  readonly #senders = new Set<Sender>();
  readonly #sent = new SendBuffer();
  #lastSeq = 0;
  #transport: Duplex | undefined;
  /** Offsets in what is kept: the present transport has been given everything before, and has let go of it. */
  #given = 0;
  #letGo = 0;
  /** The transport takes nothing now, or there is none. */
  #blocked = true;
  #scheduled = false;
  #flushing = false;
  #ending = false;
  #stopped = false;
  readonly #onDrain = (): void => {
    this.#blocked = false;
    this.#flush();
  };

  constructor(options: OutboxOptions) {
    this.#options = options;
  }

  /** From now on everything leaves on this transport, first what the far end has not got of what left before. */
  attach(transport: Duplex): void {
    this.#transport = transport;
    this.#given = this.#sent.tail;
    this.#letGo = this.#given;
    this.#blocked = false;
    transport.on("drain", this.#onDrain);
    this.#schedule();
  }

  /** Nothing leaves until there is another transport, which is not told what only concerned this one. */
  detach(): void {
    this.#forgetBeats();
    this.#transport?.off("drain", this.#onDrain);
    this.#transport = undefined;
    this.#blocked = true;
  }

  /** The far end has every sequenced frame up to this one, modulo 2^32; the caller knows that they were sent. */
  acknowledged(seq: number): void {
    const oldest = (this.#lastSeq - this.#sent.frameCount) >>> 0;
    this.#sent.acknowledge((seq - oldest) | 0);
    this.#given = Math.max(this.#given, this.#sent.tail);
    this.#free();
    this.#schedule();
  }

  /** Sequence number of the last sequenced frame handed to the transport. */
  get lastSeq(): number {
    return this.#lastSeq;
  }
  get keptBytes(): number {
    return this.#controlBytes + this.#datagramBytes + this.#sent.bytes;
  }
  get droppedDatagrams(): number {
    return this.#droppedDatagrams;
  }

  control(type: FrameType, streamId: number, payload: Uint8Array = noBytes): void {
    if (this.#stopped) return;
    if (isSequenced(type)) {
      this.#control.push({ type, streamId, payload });
      this.#controlBytes += frameHeaderBytes + payload.length;
    } else {
      this.#beats.push({ type, streamId, payload });
      this.#beatBytes += frameHeaderBytes + payload.length;
    }
    this.#schedule();
    // What was read and is never acknowledged is kept just as what is never read.
    const keptBytes = Math.max(0, this.#sent.bytes - maxUnacknowledgedBytes);
    const waitingBytes = this.#beatBytes + this.#controlBytes + keptBytes;
    if (waitingBytes <= maxQueuedControlBytes || this.#overflowed) return;
    this.#overflowed = true;
    this.#options.onOverflow(waitingBytes);
  }

  /** Queues a copy; when the queue is full the oldest go. */
  datagram(streamId: number, payload: Uint8Array): void {
    if (this.#stopped) return;
    const cost = payload.length + datagramOverheadBytes;
    while (this.#datagramBytes + cost > maxQueuedDatagramBytes) {
      const oldest = this.#datagrams.shift();
      if (oldest === undefined) break;
      this.#datagramBytes -= oldest.payload.length + datagramOverheadBytes;
      this.#droppedDatagrams += 1;
    }
    this.#datagrams.push({ streamId, payload: Uint8Array.from(payload) });
    this.#datagramBytes += cost;
    this.#schedule();
  }

  /** The sender has bytes and credit, or an END; it gets its turns until it has neither. */
  ready(sender: Sender): void {
    if (this.#stopped) return;
    this.#senders.add(sender);
    this.#schedule();
  }

  get senderCount(): number {
    return this.#senders.size;
  }

  forget(sender: Sender): void {
    this.#senders.delete(sender);
  }

  /** Ends the transport's writing side once everything that waits is sent. */
  end(): void {
    this.#ending = true;
    this.#schedule();
  }

  /** Nothing is sent from now on. */
  stop(): void {
    this.#stopped = true;
    this.#control = [];
    this.#datagrams.length = 0;
    this.#senders.clear();
    this.#sent.clear();
    this.detach();
  }

  /** The last words: without waiting for the turn's end, and behind whatever the transport has not taken yet. */
  flushLast(): void {
    this.#flush();
    if (this.#controlBytes > batchBytes) return; // nobody reads there
    while (this.#control.length > 0 && this.#transport?.writable === true && !this.#flushing) {
      this.#blocked = false;
      this.#flush();
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#blocked || this.#flushing) return;
    this.#scheduled = true;
    // Behind all that this turn of the event loop brings, and not behind each callback of it: a write to a socket costs
    // more than the rest of a datagram's way (docs/decisions/0018-speed.md).
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#flushing || this.#blocked || this.#stopped) return;
    this.#flushing = true;
    try {
      while (!this.#blocked && !this.#stopped && this.#writeBatch()) this.#options.onSent();
    } finally {
      this.#flushing = false;
    }
    if (this.#ending && !this.#blocked && !this.#stopped) this.#transport?.end();
  }

  /** False when nothing waits. */
  #writeBatch(): boolean {
    const transport = this.#transport;
    if (transport === undefined) return false;
    if (this.#waitingBytes === 0) this.#fill();
    const pieces = this.#takeBeats();
    const end = this.#sent.frameEnd(this.#given + batchBytes); // frames of the link go between whole ones
    this.#sent.views(this.#given, end, pieces);
    if (pieces.length === 0) return false;
    countChunks(end - this.#given);
    this.#given = end;
    this.#blocked = !write(transport, pieces, () => {
      if (this.#transport !== transport) return;
      this.#letGo = end;
      this.#free();
    });
    return true;
  }

  /** As one piece, or none. */
  #takeBeats(): Uint8Array[] {
    if (this.#beats.length === 0) return [];
    const bytes = new Uint8Array(this.#beatBytes);
    let end = 0;
    for (const { type, streamId, payload } of this.#beats) {
      encodeHeader(bytes, end, { type, streamId, seq: 0, length: payload.length });
      bytes.set(payload, end + frameHeaderBytes);
      end += frameHeaderBytes + payload.length;
    }
    this.#forgetBeats();
    return [bytes];
  }

  #forgetBeats(): void {
    this.#beats = [];
    this.#beatBytes = 0;
  }

  /** Of what is kept, what the present transport has still to be given. */
  get #waitingBytes(): number {
    return this.#sent.head - this.#given;
  }

  #free(): void {
    this.#sent.free(this.#transport === undefined ? this.#sent.tail : this.#letGo);
  }

  /** Makes the frames of one batch. */
  #fill(): void {
    this.#fillControl();
    while (this.#mayFill && (this.#datagrams.length > 0 || this.#senders.size > 0)) {
      this.#fillDatagrams();
      this.#fillOneTurnEach();
      this.#fillControl(); // a writer that was let go on may have had something to say
    }
  }

  /** Room in this batch, and for more that is on its way. Control is bounded by itself. */
  get #mayFill(): boolean {
    return this.#waitingBytes < batchBytes && this.#sent.bytes < maxUnacknowledgedBytes;
  }

  #fillControl(): void {
    if (this.#control.length === 0) return;
    let count = 0;
    for (const { type, streamId, payload } of this.#control) {
      if (this.#waitingBytes >= batchBytes) break;
      this.#frame(type, streamId, [payload], payload.length);
      this.#controlBytes -= frameHeaderBytes + payload.length;
      count += 1;
    }
    if (count === this.#control.length) this.#control = [];
    else this.#control.splice(0, count);
  }

  #fillDatagrams(): void {
    let sent = 0;
    while (sent < sharedTurnBytes) {
      const next = this.#datagrams.shift();
      if (next === undefined) return;
      this.#datagramBytes -= next.payload.length + datagramOverheadBytes;
      this.#frame(frameTypes.datagram, next.streamId, [next.payload], next.payload.length);
      sent += frameHeaderBytes + next.payload.length;
    }
  }

  #fillOneTurnEach(): void {
    let turns = this.#senders.size;
    for (const sender of this.#senders) {
      if (turns === 0 || !this.#mayFill) return;
      turns -= 1;
      this.#senders.delete(sender); // to the back of the queue, if it has more
      const limit = this.#senders.size === 0 ? batchBytes : sharedTurnBytes;
      const count = Math.min(sender.sendableBytes, limit);
      if (count > 0) {
        const pieces: Uint8Array[] = [];
        sender.takeBytes(count, pieces);
        this.#frame(frameTypes.data, sender.id, pieces, count);
      }
      if (sender.sendableBytes > 0) this.#senders.add(sender);
      else if (sender.takeEnd()) this.#frame(frameTypes.end, sender.id, [], 0);
    }
  }

  #frame(type: FrameType, streamId: number, pieces: readonly Uint8Array[], length: number): void {
    this.#lastSeq = (this.#lastSeq + 1) >>> 0;
    this.#sent.add({ type, streamId, seq: this.#lastSeq, length }, pieces);
  }
}

/** What the transport's `write` says: false asks to wait for 'drain'. `onTaken` when it holds none of the pieces. */
function write(transport: Duplex, pieces: readonly Uint8Array[], onTaken: () => void): boolean {
  if (transport.destroyed || transport.writableEnded) return false; // its 'close' ends the session
  const last = pieces.length - 1;
  if (last > 0) transport.cork();
  let more = true;
  for (const [index, piece] of pieces.entries()) more = transport.write(piece, index === last ? onTaken : undefined);
  if (last > 0) transport.uncork();
  return more && !transport.writableNeedDrain;
}
