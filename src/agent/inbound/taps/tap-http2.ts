// Copies of one caller's requests of HTTP/2: in the same protocol, on one connection to each wiretap's process. Reset by
// the caller, a copy is reset too.
// Invariant: a caller that leaves takes no copy with it that is whole.
// @from agent/inbound/http2/http2-connection.ts
// @to agent/inbound/taps/port-taps.ts
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Taken } from "#agent/served.ts";
import { Http2Ends } from "#agent/inbound/http2/http2-ends.ts";
import { sendTrailers } from "#agent/inbound/http2/http2-messages.ts";
import type { Http2Request } from "#agent/inbound/http2/http2-request.ts";
import { copyHeader, copyMark } from "./port-taps.ts";
import type { PortTaps, RequestCopies } from "./port-taps.ts";

export interface Http2TapsOptions {
  readonly taps: PortTaps;
  readonly openTap: (tap: Taken) => Promise<Duplex>;
  readonly clock: Clock;
}

export class Http2Taps {
  readonly #options: Http2TapsOptions;
  readonly #opening = new Set<Promise<unknown>>();
  #ends: Http2Ends | undefined;

  constructor(options: Http2TapsOptions) {
    this.#options = options;
  }

  /** Undefined when nobody wants a copy. */
  copy(request: Http2Request): RequestCopies | undefined {
    const open = (tap: Taken): Promise<Duplex> => this.#keep(this.#open(request, tap));
    return this.#options.taps.copyRequest(request.asked, { open, contentOf: (body) => body });
  }

  routesChanged(): void {
    this.#ends?.dropLaptops(this.#options.taps.isCurrent);
  }

  /** The caller is gone. What has begun to open is sent first. */
  closeAll(): void {
    const ends = this.#ends;
    if (ends !== undefined) void Promise.allSettled(this.#opening).then(() => ends.closeAll());
  }

  async #open(request: Http2Request, tap: Taken): Promise<Duplex> {
    this.#ends ??= this.#makeEnds();
    const end = await this.#ends.get(tap);
    if (request.isExtendedConnect && !(await end.takesExtendedConnect())) {
      throw new AppError("unsupported", "the laptop's process does not take WebSocket over HTTP/2");
    }
    const stream = end.request(request.fields.with(copyHeader, copyMark(tap)), request.endsWithHeaders);
    stream.on("wantTrailers", () => sendTrailers(stream, request.trailers));
    return stream;
  }

  #makeEnds(): Http2Ends {
    const { openTap, clock } = this.#options;
    const dialApplication = (): Promise<Duplex> => Promise.reject(new AppError("internal", "a copy for nobody"));
    return new Http2Ends({ dialApplication, openLaptop: openTap, clock }, () => undefined);
  }

  #keep<T>(opening: Promise<T>): Promise<T> {
    this.#opening.add(opening);
    const forget = (): unknown => this.#opening.delete(opening);
    opening.then(forget, forget);
    return opening;
  }
}
