// One request and its answer, as far as both have come. While the laptop has it and has not answered, a request that may
// be sent twice is held, so that the application can have it after all (DESIGN §5).
import type { Duplex } from "node:stream";
import type { BodyScanner } from "#http/body-scanner.ts";
import type { RequestHead } from "#http/head.ts";
import type { Taken } from "#agent/served.ts";
import { HeldBytes, isIdempotent, maxHeldBytes } from "./fail-open.ts";
import { AnswerReader } from "./http-answer.ts";
import type { HttpEnd } from "./http-end.ts";
import type { TakenIn } from "./http-intake.ts";
import type { RequestCopies } from "#agent/inbound/taps/port-taps.ts";

export class Exchange {
  readonly request: RequestHead;
  readonly body: BodyScanner;
  /** For wiretaps. */
  readonly copies: RequestCopies | undefined;
  /** Undefined: the application answers. */
  taken: Taken | undefined;
  /** Who has the request; undefined while that is being opened. */
  end: HttpEnd | undefined;
  answer: AnswerReader;
  /** The whole request was read. */
  requestDone: boolean;
  /** It was tried again on a new stream, after one that had been idle failed. */
  retried = false;
  /** What nobody has been sent yet. */
  #unsent: Buffer;
  #held: HeldBytes;

  constructor({ head, body, bytes }: TakenIn, taken: Taken | undefined, copies: RequestCopies | undefined) {
    this.copies = copies;
    this.request = head;
    this.body = body;
    this.taken = taken;
    this.answer = new AnswerReader(head.method);
    this.requestDone = body.done;
    this.#unsent = bytes;
    const fits = body.leftBytes + bytes.length <= maxHeldBytes;
    this.#held = new HeldBytes(taken !== undefined && isIdempotent(head.method) && fits);
  }

  /** It may be sent twice, and all of it that was sent is held. */
  get repeatable(): boolean {
    return this.#held.isWhole;
  }

  /** Gives it to this end, from its beginning. False when the end is full. */
  sendTo(end: HttpEnd): boolean {
    this.end = end;
    const bytes = this.#unsent;
    this.#unsent = Buffer.alloc(0);
    return this.#sendOn(bytes);
  }

  /** Some more of its body. False when the end is full. */
  send(bytes: Buffer): boolean {
    this.copies?.write(bytes);
    return this.#sendOn(bytes);
  }

  /** The caller has said all of it. */
  endRequest(): void {
    this.requestDone = true;
    this.copies?.end();
  }

  /** What its caller says from here on are bytes, of which some wait already. */
  becomeStream(caller: Duplex, waiting: Buffer | undefined): void {
    if (!this.requestDone || this.copies === undefined) return;
    this.copies.follow(caller);
    if (waiting !== undefined) this.copies.write(waiting);
  }

  #sendOn(bytes: Buffer): boolean {
    this.#held.add(bytes);
    return this.end?.duplex.write(bytes) ?? true;
  }

  /** Takes it back from an end that did not take it, or will not answer; then it must be repeatable. */
  takeBack(taken: Taken | undefined): void {
    if (this.#unsent.length === 0) this.#unsent = Buffer.concat(this.#held.pieces);
    // Sent to the application it is as it would be without us.
    this.#held = new HeldBytes(taken !== undefined);
    this.taken = taken;
    this.end = undefined;
    this.answer = new AnswerReader(this.request.method);
  }

  /** The caller ended in the middle of it: nobody else shall have half a request. */
  cutShort(): void {
    if (!this.requestDone) this.#held.drop();
    this.requestDone = true;
  }
}
