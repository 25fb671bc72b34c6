// The heart-beat of a link (PROTOCOL §6.3): PING when nothing was sent for a while, lost when nothing was heard.
import type { Clock, Timer } from "#base/clock.ts";
import { readUint32, writeUint32 } from "#wire/frame.ts";
import { heartbeatMs, linkSilenceMs } from "#wire/limits.ts";

export interface HeartbeatOptions {
  readonly clock: Clock;
  readonly sendPing: (payload: Uint8Array) => void;
  readonly onSilence: (silentMs: number) => void;
}

/**
 * chosen: a timer this late means that this process stood still (debugger, starved machine): what the far end said
 * meanwhile is still unread, so its silence proves nothing yet.
 */
const lateMs = 500;
/** chosen: timers come before bytes when a busy process gets to both. */
const lastLookMs = 5;
/** chosen: half a minute of a quiet link. */
const keptRoundTrips = 15;

/** A question out of turn. */
interface Probe {
  /** Of the PING that asks it. */
  readonly number: number;
  readonly patienceMs: number;
  sinceMs: number;
  /** Its time is over, but for what has come and is not read yet. */
  isLastLook: boolean;
  timer: Timer;
  readonly answer: (isThere: boolean) => void;
}

export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #probes = new Set<Probe>();
  #heardMs: number;
  #sentMs: number;
  #timer: Timer | undefined;
  #stopped = false;
  #pingNumber = 0;
  #pingSentMs: number | undefined;
  /** The last of them. */
  readonly #roundTripsMs: number[] = [];

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#heardMs = options.clock.now();
    this.#sentMs = this.#heardMs;
    this.#ping();
    this.#arm();
  }

  /** Median of the last ones: one that had to wait behind bulk says nothing of the way. */
  get roundTripMs(): number | undefined {
    return this.#roundTripsMs.toSorted((a, b) => a - b)[this.#roundTripsMs.length >> 1];
  }
  /** The quickest of the last ones: as long as the way is when nothing else is on it. */
  get leastRoundTripMs(): number | undefined {
    return this.#roundTripsMs.length === 0 ? undefined : Math.min(...this.#roundTripsMs);
  }
  /** Since anything was heard. */
  get silentMs(): number {
    return this.#options.clock.now() - this.#heardMs;
  }

  heard(): void {
    this.#heardMs = this.#options.clock.now();
  }
  sent(): void {
    this.#sentMs = this.#options.clock.now();
  }

  /** Asks now. False when nothing at all is heard for `patienceMs` before the answer; true as well when it is stopped. */
  probe(patienceMs: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#ping();
    const probe: Probe = {
      number: this.#pingNumber,
      patienceMs,
      sinceMs: this.#options.clock.now(),
      isLastLook: false,
      timer: this.#options.clock.after(patienceMs, () => this.#judge(probe)).unref(),
      answer: resolve,
    };
    this.#probes.add(probe);
    return promise;
  }

  #judge(probe: Probe): void {
    const { clock } = this.#options;
    const nowMs = clock.now();
    const sinceMs = Math.max(probe.sinceMs, this.#heardMs);
    const leftMs = sinceMs + probe.patienceMs - nowMs;
    const isLate = -leftMs > lateMs;
    if (leftMs <= 0 && !isLate && probe.isLastLook) {
      this.#settle(probe, false);
      return;
    }
    if (isLate) probe.sinceMs = nowMs;
    probe.isLastLook = leftMs <= 0 && !isLate;
    const waitMs = isLate ? probe.patienceMs : Math.max(leftMs, lastLookMs);
    probe.timer = clock.after(waitMs, () => this.#judge(probe)).unref();
  }

  #settle(probe: Probe, isThere: boolean): void {
    probe.timer[Symbol.dispose]();
    this.#probes.delete(probe);
    probe.answer(isThere);
  }

  pong(payload: Uint8Array): void {
    const number = readUint32(payload, 4);
    for (const probe of this.#probes) if (((number - probe.number) | 0) >= 0) this.#settle(probe, true);
    if (this.#pingSentMs === undefined || number !== this.#pingNumber) return; // an older PING's
    this.#roundTripsMs.push(this.#options.clock.now() - this.#pingSentMs);
    if (this.#roundTripsMs.length > keptRoundTrips) this.#roundTripsMs.shift();
    this.#pingSentMs = undefined;
  }

  stop(): void {
    this.#stopped = true;
    for (const probe of this.#probes) this.#settle(probe, true);
    this.#timer?.[Symbol.dispose]();
  }

  #arm(): void {
    const dueMs = Math.min(this.#sentMs + heartbeatMs, this.#heardMs + linkSilenceMs);
    const waitMs = Math.max(1, dueMs - this.#options.clock.now());
    this.#timer = this.#options.clock.after(waitMs, () => this.#check(dueMs)).unref();
  }

  #check(dueMs: number): void {
    const nowMs = this.#options.clock.now();
    if (nowMs - dueMs > lateMs) this.#heardMs = Math.max(this.#heardMs, nowMs - linkSilenceMs + lateMs);
    const silentMs = nowMs - this.#heardMs;
    if (silentMs >= linkSilenceMs) {
      this.#options.onSilence(silentMs);
      return;
    }
    if (nowMs - this.#sentMs >= heartbeatMs) this.#ping();
    if (!this.#stopped) this.#arm();
  }

  #ping(): void {
    this.#pingNumber = (this.#pingNumber + 1) >>> 0;
    const payload = new Uint8Array(8);
    writeUint32(payload, 4, this.#pingNumber);
    // Also when the transport is blocked: what waits counts as said, or this would ask again at once.
    this.sent();
    this.#pingSentMs = this.#options.clock.now();
    this.#options.sendPing(payload);
  }
}
