// What the pages that are open are told as it happens: lines of JSON. Changes wait a moment and are told together, to a
// page that does not read, not at all until it does.
import type { ServerResponse } from "node:http";
import type { Clock } from "#base/clock.ts";
import type { InspectedIntercept, InspectorEvent } from "#wire/inspector-api.ts";
import type { Exchange } from "./exchange.ts";
import type { Recorder } from "./recorder.ts";
import type { Redaction } from "./redaction.ts";
import { summarise } from "./view.ts";

/** What is kept, or that part of it which may be seen. */
export type Recorded = Pick<Recorder, "exchanges" | "oldestId" | "find" | "onChange">;

export interface LiveOptions {
  readonly recorder: Recorded;
  readonly redaction: Redaction;
  readonly intercepts: () => { readonly intercepts: readonly InspectedIntercept[]; readonly connected: boolean };
  readonly clock: Clock;
}

/** chosen: a page need not be newer than the eye. */
const flushMs = 100;
/** chosen: lines of a snapshot that a page reads at once. */
const batch = 500;
/** chosen: people have a few pages open, not more. */
export const maxPages = 8;

export class Live implements Disposable {
  readonly #options: LiveOptions;
  readonly #pages = new Set<LivePage>();
  readonly #timer: Disposable;
  readonly #listening: Disposable;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.#listening = options.recorder.onChange((exchange) => {
      for (const page of this.#pages) page.changed(exchange);
    });
    this.#timer = options.clock.every(flushMs, () => {
      for (const page of this.#pages) page.flush();
    });
  }

  get pages(): number {
    return this.#pages.size;
  }

  /** The response is written to until its page is gone. */
  add(response: ServerResponse): void {
    const page = new LivePage(response, this.#options);
    this.#pages.add(page);
    response.once("close", () => this.#pages.delete(page));
    page.flush();
  }

  /** Everything was forgotten. */
  cleared(): void {
    for (const page of this.#pages) page.cleared();
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
    this.#listening[Symbol.dispose]();
    for (const page of this.#pages) page.end();
  }
}

class LivePage {
  readonly #response: ServerResponse;
  readonly #options: LiveOptions;
  /** Ids: what a page has not read yet may be forgotten meanwhile. */
  readonly #changed: Set<number>;
  #mustTell = true;
  #lastIntercepts = "";

  constructor(response: ServerResponse, options: LiveOptions) {
    this.#response = response;
    this.#options = options;
    this.#changed = new Set(Array.from(options.recorder.exchanges, ({ id }) => id));
  }

  changed({ id }: Exchange): void {
    this.#changed.add(id);
    if (this.#changed.size <= batch) return;
    // The page does not read; of what is forgotten meanwhile it need not hear.
    const { oldestId } = this.#options.recorder;
    for (const oldest of this.#changed) {
      if (oldest >= oldestId) break;
      this.#changed.delete(oldest);
    }
  }

  cleared(): void {
    this.#changed.clear();
    this.#mustTell = true;
  }

  end(): void {
    this.#response.end();
  }

  flush(): void {
    while (!this.#response.writableNeedDrain && !this.#response.destroyed) {
      const { recorder, redaction } = this.#options;
      const some = [...this.#changed].slice(0, batch);
      for (const id of some) this.#changed.delete(id);
      if (some.length === 0 && !this.#mustTell) break;
      this.#mustTell = false;
      const kept = some.flatMap((id) => recorder.find(id) ?? []);
      const changed = kept.map((exchange) => summarise(exchange, redaction));
      this.#write({ kind: "exchanges", changed, oldest: recorder.oldestId });
    }
    this.#tellIntercepts();
  }

  #tellIntercepts(): void {
    if (this.#response.writableNeedDrain || this.#response.destroyed) return;
    const event: InspectorEvent = { kind: "intercepts", ...this.#options.intercepts() };
    const text = JSON.stringify(event);
    if (text === this.#lastIntercepts) return;
    this.#lastIntercepts = text;
    this.#write(event);
  }

  #write(event: InspectorEvent): void {
    this.#response.write(`${JSON.stringify(event)}\n`);
  }
}
