// One copy of a caller's request or connection, on its way to a wiretap's laptop. Whoever calls and whoever answers never
// waits for it: a laptop that does not keep up loses this copy, which is cut and counted. What its process answers is read
// and thrown away.
//
//   held ──open()──► opening ──► open ──end() and the answer, or the process' end──► over
//     └─────────────────┴────────┴──bound reached, caller left in the middle, laptop gone──► over, cut
//
// @from agent/inbound/taps/port-taps.ts
// @to agent/inbound/open-stream.ts
// Invariants: `write` and `end` return at once and throw nothing; what a copy holds is in `TapRoom`; a request's
// connection stays open until its answer has come, because servers take a half-close for a caller that left.
import type { ClientHttp2Stream } from "node:http2";
import { constants } from "node:http2";
import type { Duplex } from "node:stream";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { CopyRecord } from "#agent/decisions.ts";
import type { Taken } from "#agent/served.ts";
import type { TapPace } from "./tap-pace.ts";
import type { TapRoom } from "./tap-room.ts";

/** chosen: as long as somebody may stand at a breakpoint. */
const answerMs = 10 * 60_000;
/** chosen: a process that has answered and does not close is cut. */
const finishMs = 5000;

const busy = "the pod's node had no time for copies";
const tooSlow = "the laptop did not keep up";
const closed = "the process on the laptop closed the connection";

/** Finds the end of an answer. */
export interface AnswerEnd {
  /** True when the answer was whole, now or before. */
  read(bytes: Buffer): boolean;
  /** Its end is the connection's. */
  readonly untilClose: boolean;
}

export interface TapCopyOptions {
  readonly tap: Taken;
  readonly room: TapRoom;
  readonly pace: TapPace;
  readonly clock: Clock;
  /** Undefined where the end of the copy is its half-close: a connection as a whole, a stream of HTTP/2. */
  readonly answer?: AnswerEnd;
  /** Once the laptop's process has it. */
  readonly onOpen: (record: CopyRecord) => void;
}

export class TapCopy {
  readonly tap: Taken;
  readonly #options: TapCopyOptions;
  #answer: AnswerEnd | undefined;
  #isAnswered = false;
  #target: Duplex | undefined;
  #record: CopyRecord | undefined;
  /** Until it is open. */
  #waiting: Buffer[] = [];
  #heldBytes = 0;
  #isEnded = false;
  #isOver = false;
  #timer: Timer | undefined;

  constructor(options: TapCopyOptions) {
    this.tap = options.tap;
    this.#options = options;
    this.#answer = options.answer;
    const why = options.pace.isBusy ? busy : options.room.enter(this.tap.interceptId) ? undefined : tooSlow;
    if (why !== undefined) {
      this.#isOver = true;
      this.#countCut(why);
    }
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** Never rejects. */
  async open(target: () => Promise<Duplex>): Promise<void> {
    if (this.#isOver) return;
    try {
      const opened = await target();
      opened.on("error", () => undefined); // 'close' follows; stays: a late error must not end the process
      if (this.#isOver) reset(opened);
      else this.#adopt(opened);
    } catch (error) {
      if (this.#isOver) return;
      // A refusal was counted by whoever opened.
      if (!isAppError(error, "refused")) this.#countCut(toAppError(error).message);
      this.#leave();
    }
  }

  write(bytes: Buffer): void {
    if (this.#isOver || bytes.length === 0) return;
    const held = this.#options.room.take(this.tap.interceptId, this.#heldBytes, bytes.length);
    if (held === undefined) {
      this.#cut(tooSlow);
      return;
    }
    this.#heldBytes += held;
    // A view of a longer chunk would hold all of it.
    const own = bytes.length * 2 < bytes.buffer.byteLength ? Buffer.from(bytes) : bytes;
    if (this.#target === undefined) this.#waiting.push(own);
    else this.#send(this.#target, own, held);
  }

  /** The caller has said all of it. */
  end(): void {
    if (this.#isOver || this.#isEnded) return;
    this.#isEnded = true;
    if (this.#target !== undefined) this.#onEnded(this.#target);
  }

  /** The request was an upgrade: what follows are bytes, until the caller's end. */
  becomeStream(): void {
    this.#answer = undefined;
    this.#isEnded = false;
    this.#timer?.[Symbol.dispose]();
  }

  /** Half a request is nobody's. */
  callerLeft(): void {
    if (this.#isOver || this.#isEnded) return;
    if (this.#record !== undefined) this.#record.cut = "the caller left";
    this.#abandon(this.#target);
  }

  #adopt(target: Duplex): void {
    this.#target = target;
    this.#record = { tap: this.tap };
    this.#options.onOpen(this.#record);
    this.tap.opener.countCopy(this.tap.interceptId);
    target.once("end", () => this.#onProcessEnd(target));
    target.once("close", () => this.#onProcessClose(target));
    target.on("data", (bytes: Buffer) => this.#onAnswer(bytes));
    // Held until now, and accounted for as one.
    const held = this.#heldBytes;
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length > 0) this.#send(target, Buffer.concat(waiting), held);
    if (this.#isEnded) this.#onEnded(target);
  }

  #send(target: Duplex, bytes: Buffer, held: number): void {
    target.write(bytes, () => {
      if (this.#isOver) return;
      this.#heldBytes -= held;
      this.#options.room.give(this.tap.interceptId, held);
    });
  }

  #onEnded(target: Duplex): void {
    if (this.#answer === undefined) target.end();
    this.#after(answerMs, () => this.#abandon(target)); // whole, as far as it is ours to say
    if (this.#isAnswered) this.#finish(target);
  }

  #onAnswer(bytes: Buffer): void {
    if (this.#answer === undefined || this.#isAnswered) return;
    this.#isAnswered = this.#answer.read(bytes);
    if (this.#isAnswered && this.#isEnded && this.#target !== undefined) this.#finish(this.#target);
  }

  /** Of a request, whatever is left of it: nobody will answer that. */
  #onProcessEnd(target: Duplex): void {
    if (this.#isOver || this.#answer === undefined) return;
    if (!this.#isAnswered && !this.#answer.untilClose) this.#countCut(closed);
    this.#leave();
    if (target.writableLength > 0) reset(target);
    else target.end();
  }

  #onProcessClose(target: Duplex): void {
    if (this.#isOver) return;
    const isWhole = this.#answer === undefined ? this.#isEnded || target.readableEnded : this.#isAnswered;
    if (!isWhole) this.#countCut(closed);
    this.#leave();
  }

  #finish(target: Duplex): void {
    target.end();
    this.#after(finishMs, () => this.#abandon(target));
  }

  #cut(reason: string): void {
    this.#countCut(reason);
    this.#abandon(this.#target);
  }

  #abandon(target: Duplex | undefined): void {
    this.#leave();
    if (target !== undefined) reset(target);
  }

  #countCut(reason: string): void {
    if (this.#record !== undefined) this.#record.cut = reason;
    this.tap.opener.countCopy(this.tap.interceptId, reason);
  }

  #leave(): void {
    this.#isOver = true;
    this.#timer?.[Symbol.dispose]();
    this.#waiting = [];
    this.#target = undefined;
    this.#options.room.leave(this.tap.interceptId, this.#heldBytes);
    this.#heldBytes = 0;
  }

  #after(ms: number, callback: () => void): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = this.#options.clock.after(ms, callback).unref();
  }
}

function reset(target: Duplex): void {
  if ("rstCode" in target) (target as ClientHttp2Stream).close(constants.NGHTTP2_CANCEL);
  else target.destroy(new AppError("cancelled", "the copy was cut short"));
}
