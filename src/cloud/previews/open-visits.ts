// Requests that are being answered: how many of a preview there are at once, and whether those that last (events, a
// WebSocket, a long download) are still somebody's who may. A login ends, a team is left, a link is revoked, and another
// server of the same database removes a preview, while they stand.
import type { Clock, Timer } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";

/** chosen: of one preview; how often it is looked whether who visits still may. */
const [maxAtOnce, checkMs] = [512, 10_000];

export interface OpenVisit {
  may(): Promise<boolean>;
  cut(): void;
}

interface Closing {
  once(event: "close", listener: () => void): unknown;
}

export class OpenVisits {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #byPreview = new Map<string, Set<OpenVisit>>();
  #checking: Timer | undefined;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** Until `of` closes; false when the preview has as many as it may have. */
  hold(previewId: string, visit: OpenVisit, of: Closing): boolean {
    const all = this.#byPreview.get(previewId) ?? new Set();
    if (all.size >= maxAtOnce) return false;
    this.#byPreview.set(previewId, all.add(visit));
    this.#checking ??= this.#clock.every(checkMs, () => void this.#check()).unref();
    of.once("close", () => {
      all.delete(visit);
      if (all.size > 0) return;
      this.#byPreview.delete(previewId);
      if (this.#byPreview.size > 0) return;
      this.#checking?.[Symbol.dispose]();
      this.#checking = undefined;
    });
    return true;
  }

  async #check(): Promise<void> {
    try {
      for (const visit of [...this.#byPreview.values()].flatMap((all) => [...all])) {
        if (!(await visit.may())) visit.cut();
      }
    } catch (error) {
      this.#log.warn("visitors of previews not checked", { error: String(error) });
    }
  }
}
