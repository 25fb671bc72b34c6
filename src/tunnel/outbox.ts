// What a session has to say, in the order it says it: frames of control first, then datagrams and streams in turns.
// Streams keep their own bytes until it is their turn, so a blocked transport brakes each stream's writer and nothing
// piles up here but control frames and the bounded datagram queue.
// Where a session outlives its transport, what the far end has not acknowledged is kept, and sent again on the next.
// Invariant: sequence numbers are given in the order of the bytes on the transport.
import type { Duplex } from "node:stream";
import { encodeHeader, frameHeaderBytes, frameTypes, isSequenced } from "#wire/frame.ts";
import type { FrameType } from "#wire/frame.ts";
import { maxQueuedDatagramBytes, maxUnacknowledgedBytes } from "#wire/limits.ts";
import { Unacknowledged } from "./unacknowledged.ts";

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
  /** What was sent is kept until it is acknowledged. */
  readonly keepsSent: boolean;
  /** Something left for the transport. */
  readonly onSent: () => void;
  /** The far end makes us answer more than it reads. */
  readonly onOverflow: (bytes: number) => void;
}

/** chosen: what one write to the transport gathers; also one stream's turn when it is alone. */
const batchBytes = 64 * 1024;
/** chosen: a stream's turn when others wait, so that a bulk stream costs an interactive one a fraction of a batch. */
const sharedTurnBytes = 16 * 1024;
/** chosen: payloads up to this are copied next to their header, longer ones are passed on as they are. */
const copyBytes = 2048;
const slabBytes = 16 * 1024;
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
  readonly #batch = new Batch();
  #control: ControlFrame[] = [];
  #controlBytes = 0;
  #overflowed = false;
  readonly #datagrams: { readonly streamId: number; readonly payload: Uint8Array }[] = [];
  #datagramBytes = 0;
  #droppedDatagrams = 0;
  readonly #senders = new Set<Sender>();
  /** Undefined where nothing is ever sent again. */
  readonly #sent: Unacknowledged | undefined;
  /** Of those, how many the present transport has been given. */
  #givenCount = 0;
  #lastSeq = 0;
  #transport: Duplex | undefined;
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
    if (options.keepsSent) this.#sent = new Unacknowledged();
  }

  /** From now on everything leaves on this transport, first what the far end has not got of what left before. */
  attach(transport: Duplex): void {
    this.#transport = transport;
    this.#givenCount = 0;
    this.#blocked = false;
    transport.on("drain", this.#onDrain);
    this.#schedule();
  }

  /** Nothing leaves until there is another transport, which is not told what only concerned this one. */
  detach(): void {
    this.#control = this.#control.filter(({ type }) => isSequenced(type));
    this.#controlBytes = this.#control.reduce((sum, { payload }) => sum + frameHeaderBytes + payload.length, 0);
    this.#transport?.off("drain", this.#onDrain);
    this.#transport = undefined;
    this.#blocked = true;
  }

  /** The far end has every sequenced frame up to this one. */
  acknowledged(seq: number): void {
    if (this.#sent === undefined) return;
    const before = this.#sent.count;
    this.#sent.acknowledge(seq);
    this.#givenCount = Math.max(0, this.#givenCount - (before - this.#sent.count));
    this.#schedule();
  }

  /** Sequence number of the last sequenced frame handed to the transport. */
  get lastSeq(): number {
    return this.#lastSeq;
  }
  get keptBytes(): number {
    return this.#controlBytes + this.#datagramBytes + (this.#sent?.bytes ?? 0);
  }
  get droppedDatagrams(): number {
    return this.#droppedDatagrams;
  }

  control(type: FrameType, streamId: number, payload: Uint8Array = noBytes): void {
    if (this.#stopped) return;
    this.#control.push({ type, streamId, payload });
    this.#controlBytes += frameHeaderBytes + payload.length;
    this.#schedule();
    // What was read and is never acknowledged is kept just as what is never read.
    const keptBytes = Math.max(0, (this.#sent?.bytes ?? 0) - maxUnacknowledgedBytes);
    const waitingBytes = this.#controlBytes + keptBytes;
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
    this.#sent?.clear();
    this.detach();
  }

  /** The last words: without waiting for the tick's end, and behind whatever the transport has not taken yet. */
  flushLast(): void {
    this.#flush();
    while (this.#control.length > 0 && this.#transport?.writable === true && !this.#flushing) {
      this.#blocked = false;
      this.#flush();
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#blocked || this.#flushing) return;
    this.#scheduled = true;
    // At the end of the tick: whatever one turn of the event loop caused leaves in one write.
    process.nextTick(() => {
      this.#scheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    if (this.#flushing || this.#blocked || this.#stopped) return;
    this.#flushing = true;
    try {
      while (!this.#blocked && !this.#stopped && this.#fill()) {
        this.#blocked = this.#transport === undefined || !this.#batch.writeTo(this.#transport);
        this.#options.onSent();
      }
    } finally {
      this.#flushing = false;
    }
    if (this.#ending && !this.#blocked && !this.#stopped) this.#transport?.end();
  }

  /** Gathers one batch; false when nothing waits. */
  #fill(): boolean {
    if (!this.#fillAgain()) return true;
    this.#fillControl();
    while (this.#mayFill && (this.#datagrams.length > 0 || this.#senders.size > 0)) {
      this.#fillDatagrams();
      this.#fillOneTurnEach();
      this.#fillControl(); // a writer that was let go on may have had something to say
    }
    return this.#batch.bytes > 0;
  }

  /** Room in this batch, and for more that is on its way. Control is bounded by itself. */
  get #mayFill(): boolean {
    return this.#batch.bytes < batchBytes && (this.#sent === undefined || this.#sent.bytes < maxUnacknowledgedBytes);
  }

  /** What an earlier transport may have taken with it; true when all of it is under way again. */
  #fillAgain(): boolean {
    while (this.#batch.bytes < batchBytes) {
      const frame = this.#sent?.at(this.#givenCount);
      if (frame === undefined) return true;
      this.#batch.header(frame.type, frame.streamId, frame.seq, frame.length);
      for (const piece of frame.pieces) this.#batch.add(piece);
      this.#givenCount += 1;
    }
    return false;
  }

  #fillControl(): void {
    if (this.#control.length === 0) return;
    let count = 0;
    for (const { type, streamId, payload } of this.#control) {
      if (this.#batch.bytes >= batchBytes) break;
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
    const sequenced = isSequenced(type);
    if (sequenced) this.#lastSeq = (this.#lastSeq + 1) >>> 0;
    this.#batch.header(type, streamId, sequenced ? this.#lastSeq : 0, length);
    for (const piece of pieces) this.#batch.add(piece);
    if (!sequenced || this.#sent === undefined) return;
    this.#sent.add({ type, streamId, seq: this.#lastSeq, length, pieces });
    this.#givenCount += 1;
  }
}

/** Bytes for one write to the transport: headers and small payloads side by side in a slab, large ones by reference. */
class Batch {
  #slab: Uint8Array = noBytes;
  #start = 0;
  #end = 0;
  #pieces: Uint8Array[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  header(type: FrameType, streamId: number, seq: number, length: number): void {
    this.#reserve(frameHeaderBytes);
    encodeHeader(this.#slab, this.#end, { type, streamId, seq, length });
    this.#end += frameHeaderBytes;
    this.#bytes += frameHeaderBytes;
  }

  add(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    if (bytes.length > copyBytes) {
      this.#cut();
      this.#pieces.push(bytes);
      return;
    }
    this.#reserve(bytes.length);
    this.#slab.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** What the transport's `write` says: false asks to wait for 'drain'. */
  writeTo(transport: Duplex): boolean {
    this.#cut();
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#bytes = 0;
    if (transport.destroyed || transport.writableEnded) return false; // its 'close' ends the session
    if (pieces.length === 1) return transport.write(pieces[0]);
    transport.cork();
    let more = true;
    for (const piece of pieces) more = transport.write(piece);
    transport.uncork();
    return more && !transport.writableNeedDrain;
  }

  #reserve(count: number): void {
    if (this.#slab.length - this.#end >= count) return;
    this.#cut();
    this.#slab = Buffer.allocUnsafeSlow(slabBytes);
    this.#start = 0;
    this.#end = 0;
  }

  #cut(): void {
    if (this.#end === this.#start) return;
    this.#pieces.push(this.#slab.subarray(this.#start, this.#end));
    this.#start = this.#end;
  }
}
