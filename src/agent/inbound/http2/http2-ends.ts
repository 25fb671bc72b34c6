// Those whom one caller's requests of HTTP/2 go to: at most one connection to the application and one stream for each
// intercept that take new requests, opened when first needed and kept. One that is going away finishes what it has.
// @from agent/inbound/http2/http2-connection.ts
// @to agent/inbound/open-stream.ts, agent/inbound/pass.ts
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { sameIntercept } from "#agent/served.ts";
import type { Taken } from "#agent/served.ts";
import { Http2End } from "./http2-end.ts";

export interface Http2EndsOptions {
  readonly dialApplication: () => Promise<Duplex>;
  /** Rejects when the laptop's process does not take the connection. */
  readonly openLaptop: (taken: Taken) => Promise<Duplex>;
  readonly clock: Clock;
}

/** What the caller is to know of the application. */
export type ApplicationEvent = "takes extended CONNECT" | "leaves";

interface Slot {
  readonly taken: Taken | undefined;
  readonly opened: Promise<Http2End>;
  end: Http2End | undefined;
}

export class Http2Ends {
  readonly #options: Http2EndsOptions;
  readonly #onApplication: (event: ApplicationEvent) => void;
  /** By the intercept's id; the application's is empty. */
  readonly #slots = new Map<string, Slot>();
  readonly #all = new Set<Http2End>();
  #over = false;

  constructor(options: Http2EndsOptions, onApplication: (event: ApplicationEvent) => void) {
    this.#options = options;
    this.#onApplication = onApplication;
  }

  /** Takes over a connection that was opened before it was known what the caller speaks. */
  adopt(duplex: Duplex, taken: Taken | undefined): void {
    void this.#fill(taken, Promise.resolve(duplex));
  }

  /** One that takes new requests, if it is open. */
  ready(taken: Taken | undefined): Http2End | undefined {
    const { taken: known, end } = this.#slots.get(idOf(taken)) ?? {};
    return end?.isUsable === true && (taken === undefined || sameIntercept(taken, known)) ? end : undefined;
  }

  /** One that takes new requests. Rejects with why there is none. */
  async get(taken: Taken | undefined): Promise<Http2End> {
    const known = this.#slots.get(idOf(taken));
    const isGood = known !== undefined && known.end?.isUsable !== false;
    if (isGood && (taken === undefined || sameIntercept(taken, known.taken))) return await known.opened;
    known?.end?.close();
    const { dialApplication, openLaptop } = this.#options;
    return await this.#fill(taken, taken === undefined ? dialApplication() : openLaptop(taken));
  }

  /** Laptops' connections whose intercept is over take no more requests. */
  dropLaptops(isCurrent: (taken: Taken) => boolean): void {
    for (const { taken, opened } of this.#slots.values()) {
      if (taken === undefined || isCurrent(taken)) continue;
      this.#slots.delete(idOf(taken));
      opened.then((end) => end.close()).catch(() => undefined); // who waits for it hears
    }
  }

  /** The caller is gone. */
  closeAll(): void {
    this.#over = true;
    this.#slots.clear();
    for (const end of this.#all) end.close();
  }

  #fill(taken: Taken | undefined, duplex: Promise<Duplex>): Promise<Http2End> {
    const opened = this.#open(taken, duplex);
    const slot: Slot = { taken, opened, end: undefined };
    this.#slots.set(idOf(taken), slot);
    opened.then(
      (end) => (slot.end = end),
      () => this.#forget(slot),
    );
    return opened;
  }

  #forget(slot: Slot | undefined): void {
    if (slot !== undefined && this.#slots.get(idOf(slot.taken)) === slot) this.#slots.delete(idOf(slot.taken));
  }

  async #open(taken: Taken | undefined, opening: Promise<Duplex>): Promise<Http2End> {
    const duplex = await opening;
    if (this.#over) {
      duplex.destroy();
      throw new AppError("cancelled", "the caller is gone");
    }
    if (duplex.destroyed || duplex.readableEnded) throw new AppError("peer_reset", "the connection was closed");
    const end = new Http2End({ duplex, taken, clock: this.#options.clock, onGone: this.#onGone });
    this.#all.add(end);
    duplex.once("close", () => this.#all.delete(end));
    if (taken === undefined) {
      const onGreeting = (extended: boolean): void => void (extended && this.#onApplication("takes extended CONNECT"));
      end.takesExtendedConnect().then(onGreeting, () => undefined); // its loss is heard anyway
      return end;
    }
    // Nothing is sent before it has greeted: a process that speaks something else has then seen no request.
    try {
      await end.greeted;
    } catch (error) {
      end.destroy();
      if (isAppError(error, "link_lost")) throw error;
      taken.opener.countRefused(taken.interceptId);
      const reason = `the process does not speak HTTP/2 without TLS: ${toAppError(error).message}`;
      throw new AppError("refused", reason, { cause: error });
    }
    return end;
  }

  readonly #onGone = (end: Http2End): void => {
    const slot = this.#slots.get(idOf(end.taken));
    if (slot?.end === end) this.#forget(slot);
    if (end.taken === undefined && !this.#over) this.#onApplication("leaves");
  };
}

function idOf(taken: Taken | undefined): string {
  return taken?.interceptId ?? "";
}
