// The ends that one caller's requests go to: at most one connection to the application and one stream for each intercept,
// opened when first needed and kept. One that was idle for a while may be closing at this very moment; who would not
// notice that gets a new one.
// @from agent/inbound/http/http-connection.ts
// @to agent/inbound/open-stream.ts, agent/inbound/pass.ts
import type { Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { sameIntercept } from "#agent/served.ts";
import type { Taken } from "#agent/served.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { HttpEnd } from "./http-end.ts";
import type { HttpEndListener } from "./http-end.ts";
import type { Exchange } from "./http-exchange.ts";

/** chosen: servers close idle connections after 2 s and more. */
const surelyOpenMs = 1000;

export interface HttpEndsOptions {
  readonly dialApplication: () => Promise<Socket>;
  /** Rejects when the laptop's process does not take the connection. */
  readonly openLaptop: (taken: Taken) => Promise<Socket | TunnelStream>;
  readonly clock: Clock;
}

/** A stream to the laptop of `taken`, or the application; that after the laptop of `refused` did not take it. */
export interface ReadyEnd {
  readonly duplex: Socket | TunnelStream;
  readonly taken?: Taken | undefined;
  readonly refused?: Taken | undefined;
  /** Why it did not. */
  readonly reason?: string | undefined;
}

export class HttpEnds {
  readonly #options: HttpEndsOptions;
  readonly #listener: HttpEndListener;
  #application: HttpEnd | undefined;
  /** By the intercept's id. */
  readonly #laptops = new Map<string, HttpEnd>();
  #laptopAnsweredLast = false;

  constructor(options: HttpEndsOptions, listener: HttpEndListener) {
    this.#options = options;
    this.#listener = listener;
  }

  /** The application's closing is the caller's to know, unless the laptop has answered since. */
  get callerFollowsApplication(): boolean {
    return !this.#laptopAnsweredLast;
  }

  adopt(duplex: Socket | TunnelStream, taken: Taken | undefined): HttpEnd {
    const end = new HttpEnd(duplex, taken, this.#listener, this.#options.clock);
    if (taken === undefined) this.#application = end;
    else this.#laptops.set(taken.interceptId, end);
    return end;
  }

  /** One that is open and good for this request. */
  ready(exchange: Exchange): HttpEnd | undefined {
    const { taken } = exchange;
    const end = taken === undefined ? this.#application : this.#laptops.get(taken.interceptId);
    if (end === undefined) return undefined;
    if (end.usable && this.#isGoodFor(end, exchange)) return end;
    this.drop(end);
    return undefined;
  }

  /** For bytes that are no request. */
  readyApplication(): HttpEnd | undefined {
    return this.#application?.usable === true ? this.#application : undefined;
  }

  async open(taken: Taken | undefined): Promise<Socket | TunnelStream> {
    return taken === undefined ? await this.#options.dialApplication() : await this.#options.openLaptop(taken);
  }

  /** An exchange on it is over. */
  answered(end: HttpEnd): void {
    end.used = true;
    end.idleSinceMs = this.#options.clock.now();
    this.#laptopAnsweredLast = end.taken !== undefined;
  }

  /** The caller takes bytes again. */
  resumeAll(): void {
    this.#application?.duplex.resume();
    for (const { duplex } of this.#laptops.values()) duplex.resume();
  }

  /** It has ended or failed, or is somebody else's now. */
  forget(end: HttpEnd): void {
    if (this.#application === end) this.#application = undefined;
    const id = end.taken?.interceptId;
    if (id !== undefined && this.#laptops.get(id) === end) this.#laptops.delete(id);
  }
  drop(end: HttpEnd): void {
    this.forget(end);
    end.finish();
  }

  /** Laptops' streams whose intercept is over, when no exchange is on them. */
  dropLaptops(isCurrent: (taken: Taken) => boolean, busy: HttpEnd | undefined): void {
    for (const end of this.#laptops.values()) {
      if (end.taken !== undefined && end !== busy && !isCurrent(end.taken)) this.drop(end);
    }
  }

  /** An end that has a request under way is cut. */
  finishAll(busy?: HttpEnd): void {
    for (const end of [this.#application, ...this.#laptops.values()]) {
      if (end === undefined) continue;
      this.forget(end);
      if (end === busy) end.reset();
      else end.finish();
    }
  }

  #isGoodFor(end: HttpEnd, exchange: Exchange): boolean {
    const recent = this.#options.clock.now() - end.idleSinceMs < surelyOpenMs;
    // Without us, the caller would meet the application's closing as well.
    if (end.taken === undefined) return recent || !this.#laptopAnsweredLast;
    return sameIntercept(end.taken, exchange.taken) && (recent || exchange.repeatable);
  }
}
