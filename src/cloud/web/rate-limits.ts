// Token buckets by whoever calls, in bounded memory: when the table is full, the one that was not used the longest
// goes. Forgetting somebody gives them a full bucket, so the table is far larger than a team.
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";

export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

/** chosen. */
const maxKeys = 20_000;

export class RateLimit {
  readonly #rate: Rate;
  readonly #clock: Pick<Clock, "now">;
  /** In the order of their last use. */
  readonly #buckets = new Map<string, { left: number; atMs: number }>();

  constructor(rate: Rate, clock: Pick<Clock, "now">) {
    this.#rate = rate;
    this.#clock = clock;
  }

  /** False when there is nothing left; takes nothing then. */
  tryTake(key: string): boolean {
    const bucket = this.#refilled(key);
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  }

  /** What was taken before it was known whether it counts. */
  giveBack(key: string): void {
    const bucket = this.#refilled(key);
    bucket.left = Math.min(this.#rate.burst, bucket.left + 1);
  }

  /** Whether something is left, without taking it. */
  has(key: string): boolean {
    return this.#refilled(key).left >= 1;
  }

  take(key: string): void {
    if (!this.tryTake(key)) throw tooMany();
  }

  #refilled(key: string): { left: number; atMs: number } {
    const nowMs = this.#clock.now();
    const known = this.#buckets.get(key);
    const { burst, perSecond } = this.#rate;
    const left = known === undefined ? burst : Math.min(burst, known.left + ((nowMs - known.atMs) / 1000) * perSecond);
    const bucket = { left, atMs: nowMs };
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > maxKeys) this.#buckets.delete(this.#buckets.keys().next().value ?? key);
    return bucket;
  }
}

export function tooMany(): AppError {
  return new AppError("busy", "there were too many attempts; wait a few minutes and try again");
}
