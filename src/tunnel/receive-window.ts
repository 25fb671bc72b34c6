// How much the far end may send on a stream, and how much a session holds for its readers in all (PROTOCOL §6.1).
// Every stream has a small window that nobody can take away. What it has beyond that is lent from the session's budget:
// some when it opens, more when its reader proves quick, so that thousands of slow or silent streams cannot use up what
// a busy one needs. The scarcer the budget, the less each gets; what is read under pressure is not lent again.
//
//   window = initialWindowBytes + lent = what the far end may still send + what waits for the reader + what it just took
//
// Invariant: all windows together are at most the budget; a reader that reads always gets credit in the end.
import { initialWindowBytes, maxWindowBytes, shortWayWindowBytes } from "#wire/limits.ts";

export interface ReceiveLimits {
  /** Streams at once. */
  readonly maxStreams: number;
  /** Bytes that wait for readers, over all streams. */
  readonly budgetBytes: number;
  /** Shared with other sessions: what is lent comes out of it too. */
  readonly pool?: ReceivePool;
}

/** What several sessions of one process may lend in all. */
export class ReceivePool {
  freeBytes: number;

  constructor(bytes: number) {
    this.freeBytes = bytes;
  }
}

/** What tells a quick reader from a slow one. */
export interface Pace {
  nowMs(): number;
  readonly roundTripMs: number | undefined;
  /** When nothing else was on the way. */
  readonly leastRoundTripMs: number | undefined;
}

/** chosen: window of a new stream while there is plenty: the answer to most requests, and no wait for the first credit. */
export const startWindowBytes = 64 * 1024;
/** chosen: streams that only opened hold at most this share of what is lent. */
const startShare = 1 / 2;
/** chosen: the part of what is left that one stream may have: new ones, and those that have earned more. */
const startDivisor = 16;
const earnedDivisor = 4;
/** chosen: those that have earned more share it with so many that may come. */
const expectedStreams = 7;
/**
 * chosen: a window of which a quarter was taken in two round trips and this grows. The round trip is that of a quiet link;
 * one that is full, or a machine that is busy, has times as long, and it is there that a narrow window costs most.
 */
const quickMs = 50;
const growthFactor = 4;
/**
 * chosen: a window beyond that of a short way is so many times what its reader takes in one undisturbed round trip: wide
 * enough to find out that there is room for more, and no wider, since the rest would only queue before the narrowest place
 * and make everybody else wait.
 */
const headroom = 2;

export class ReceiveBudget {
  readonly #lendableBytes: number;
  readonly #pool: ReceivePool | undefined;
  #freeBytes: number;
  #startedBytes = 0;
  #earners = 0;

  constructor({ maxStreams, budgetBytes, pool }: ReceiveLimits) {
    this.#pool = pool;
    this.#lendableBytes = Math.max(0, budgetBytes - maxStreams * initialWindowBytes);
    this.#freeBytes = this.#lendableBytes;
  }

  /** Bytes that are lent to streams now. */
  get lentBytes(): number {
    return this.#lendableBytes - this.#freeBytes;
  }

  lendToStart(): number {
    const left = Math.min(this.#leftBytes, this.#lendableBytes * startShare - this.#startedBytes);
    const bytes = Math.max(0, Math.min(startWindowBytes - initialWindowBytes, Math.floor(left / startDivisor)));
    this.lend(bytes);
    this.#startedBytes += bytes;
    return bytes;
  }

  /** So much of what streams were lent at their start is earned now, or given back. */
  leaveStart(bytes: number): void {
    this.#startedBytes -= bytes;
  }

  /** So many more streams are past their start. */
  countEarners(change: number): void {
    this.#earners += change;
  }

  /** What a stream that has `lentBytes` may have instead. */
  fairShare(lentBytes: number): number {
    const left = Math.floor((this.#leftBytes + lentBytes) / earnedDivisor);
    const share = Math.floor(this.#lendableBytes / (this.#earners + expectedStreams));
    return Math.min(maxWindowBytes - initialWindowBytes, share, left);
  }

  /** A negative count gives back. */
  lend(bytes: number): void {
    this.#freeBytes -= bytes;
    if (this.#pool !== undefined) this.#pool.freeBytes -= bytes;
  }

  get #leftBytes(): number {
    return Math.min(this.#freeBytes, this.#pool?.freeBytes ?? Number.POSITIVE_INFINITY);
  }
}

export class ReceiveWindow {
  readonly #budget: ReceiveBudget;
  readonly #pace: Pace;
  /** What the far end may still send. */
  #leftBytes = initialWindowBytes;
  /** What the reader took and the far end was not told of yet. */
  #takenBytes = 0;
  #lentBytes = 0;
  #starting = false;
  #earning = false;
  #ended = false;
  #stepStartMs: number;
  /** Of the reader, over the last steps. */
  #bytesPerMs = 0;

  constructor(budget: ReceiveBudget, pace: Pace) {
    this.#budget = budget;
    this.#pace = pace;
    this.#stepStartMs = pace.nowMs();
  }

  get leftBytes(): number {
    return this.#leftBytes;
  }

  /** The stream stands; the credit to give. */
  open(): number {
    this.#starting = true;
    this.#lentBytes = this.#budget.lendToStart();
    this.#leftBytes += this.#lentBytes;
    return this.#lentBytes;
  }

  /** The far end has sent so much, which it had to have credit for. */
  arrived(bytes: number): void {
    if (this.#takenBytes === 0 && this.#leftBytes === this.#windowBytes) this.#stepStartMs = this.#pace.nowMs();
    this.#leftBytes -= bytes;
  }

  /** The reader has taken so much, and so much still waits for it; the credit to give now, if any. */
  taken(bytes: number, waitingBytes: number): number {
    if (this.#ended) {
      this.#keep(waitingBytes);
      return 0;
    }
    this.#takenBytes += bytes;
    if (this.#takenBytes * 4 < this.#windowBytes) return 0;
    const change = this.#change();
    const credit = Math.max(0, this.#takenBytes + change);
    this.#lend(credit - this.#takenBytes);
    this.#takenBytes = 0;
    this.#leftBytes += credit;
    return credit;
  }

  /** Nothing more comes. */
  end(waitingBytes: number): void {
    if (!this.#ended && this.#earning) this.#budget.countEarners(-1);
    this.#ended = true;
    this.#keep(waitingBytes);
  }

  get #windowBytes(): number {
    return initialWindowBytes + this.#lentBytes;
  }

  /** How the window changes: wider for a quick reader, narrower when this stream has more than its share. */
  #change(): number {
    const nowMs = this.#pace.nowMs();
    const stepMs = nowMs - this.#stepStartMs;
    const quick = stepMs <= 2 * (this.#pace.roundTripMs ?? 0) + quickMs;
    this.#stepStartMs = nowMs;
    this.#bytesPerMs = (this.#bytesPerMs + this.#takenBytes / Math.max(1, stepMs)) / 2;
    if (quick) this.#earn();
    const widestBytes = Math.min(this.#windowBytes * growthFactor, this.#widestBytes) - initialWindowBytes;
    const wantedBytes = quick ? widestBytes : this.#lentBytes;
    return Math.min(wantedBytes, this.#budget.fairShare(this.#lentBytes)) - this.#lentBytes;
  }

  /** On a long way what a quick reader takes in a round trip is more than what a short one needs. */
  get #widestBytes(): number {
    const onTheWay = this.#bytesPerMs * (this.#pace.leastRoundTripMs ?? 0);
    return Math.min(maxWindowBytes, Math.max(shortWayWindowBytes, Math.ceil(headroom * onTheWay)));
  }

  #earn(): void {
    if (this.#earning) return;
    this.#earning = true;
    this.#budget.countEarners(1);
  }

  #keep(bytes: number): void {
    if (bytes < this.#lentBytes) this.#lend(bytes - this.#lentBytes);
  }

  #lend(change: number): void {
    if (this.#starting) this.#budget.leaveStart(change > 0 ? this.#lentBytes : -change);
    if (change > 0) this.#starting = false;
    this.#budget.lend(change);
    this.#lentBytes += change;
  }
}
