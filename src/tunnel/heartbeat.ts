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

export class Heartbeat {
  readonly #options: HeartbeatOptions;
  #heardMs: number;
  #sentMs: number;
  #timer: Timer | undefined;
  #stopped = false;
  #pingNumber = 0;
  #pingSentMs: number | undefined;
  #roundTripMs: number | undefined;

  constructor(options: HeartbeatOptions) {
    this.#options = options;
    this.#heardMs = options.clock.now();
    this.#sentMs = this.#heardMs;
    this.#ping();
    this.#arm();
  }

  get roundTripMs(): number | undefined {
    return this.#roundTripMs;
  }

  heard(): void {
    this.#heardMs = this.#options.clock.now();
  }
  sent(): void {
    this.#sentMs = this.#options.clock.now();
  }

  pong(payload: Uint8Array): void {
    if (this.#pingSentMs === undefined || readUint32(payload, 4) !== this.#pingNumber) return; // an older PING's
    this.#roundTripMs = this.#options.clock.now() - this.#pingSentMs;
    this.#pingSentMs = undefined;
  }

  stop(): void {
    this.#stopped = true;
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
