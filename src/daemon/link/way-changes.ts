// When the way to the cluster may have changed: this machine has slept, or its kernel has news of links, addresses and
// routes. Told at once, and again when a storm of such news is over.
import type { Clock, Timer } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import { watchStandstills } from "#base/standstill.ts";
import { NetworkNews } from "#kernel/network-news.ts";

/** chosen: an address, its routes and the default route come within milliseconds of each other. */
const stormMs = 250;

export interface WayChangesOptions {
  /** The device into the cluster, which is no part of the way to it. */
  readonly isOwn: (deviceName: string) => boolean;
  readonly onChange: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export class WayChanges implements Disposable {
  readonly #options: WayChangesOptions;
  readonly #standstills: Timer;
  readonly #news: NetworkNews | undefined;
  #storm: Timer | undefined;
  #hasMore = false;

  constructor(options: WayChangesOptions) {
    this.#options = options;
    const { clock, log, isOwn } = options;
    this.#standstills = watchStandstills(clock, (ms) => {
      log.info("this machine or process stood still", { ms });
      this.tell();
    });
    try {
      this.#news = new NetworkNews({ isOwn, onNews: () => this.tell() });
    } catch (error) {
      // A sandbox may forbid it; then silence tells, seconds later.
      log.warn("no news of the network", { error: String(error) });
    }
  }

  [Symbol.dispose](): void {
    this.#standstills[Symbol.dispose]();
    this.#news?.[Symbol.dispose]();
    this.#storm?.[Symbol.dispose]();
  }

  /** The first of a storm is passed on, and once more what came after it. */
  tell(): void {
    if (this.#storm !== undefined) {
      this.#hasMore = true;
      return;
    }
    this.#hasMore = false;
    this.#options.onChange();
    this.#storm = this.#options.clock.after(stormMs, () => {
      this.#storm = undefined;
      if (this.#hasMore) this.tell();
    });
    this.#storm.unref();
  }
}
