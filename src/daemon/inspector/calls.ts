// What the inspector's page asks for, whatever brings the question: the exchanges that are kept, one of them, all as they
// happen, an archive, and one sent again.
import type { ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { AppError, toAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import type { Exchange } from "./exchange.ts";
import { harPieces } from "./har.ts";
import { Live, maxPages } from "./live.ts";
import type { LiveOptions } from "./live.ts";
import type { Recorder } from "./recorder.ts";
import { replay } from "./replay.ts";
import type { ReplayOptions } from "./replay.ts";
import { viewOf } from "./view.ts";

export interface CallsOptions extends LiveOptions, Pick<ReplayOptions, "dial"> {
  /** Where a request that is sent again is read along. */
  readonly replayedTo: Recorder;
}

/** What this caller may do beside looking. */
export interface CallRights {
  /** See what is hidden. */
  readonly reveal: boolean;
  /** Send a request again, and forget. */
  readonly act: boolean;
}

export class InspectorCalls implements Disposable {
  readonly #options: CallsOptions;
  readonly #live: Live;
  readonly #gone = new AbortController();

  constructor(options: CallsOptions) {
    this.#options = options;
    this.#live = new Live(options);
  }

  /** Pages that are open. */
  get pages(): number {
    return this.#live.pages;
  }

  [Symbol.dispose](): void {
    this.#live[Symbol.dispose]();
    this.#gone.abort(new AppError("cancelled", "the connection to the cluster was ended"));
  }

  /** `what` is method and path: `GET /api/exchanges/7`. */
  async answer(what: string, query: URLSearchParams, response: ServerResponse, rights: CallRights): Promise<void> {
    const [, read] = /^GET \/api\/exchanges\/(\d{1,15})$/.exec(what) ?? [];
    const redaction = rights.reveal && query.get("reveal") === "1" ? undefined : this.#options.redaction;
    if (read !== undefined) return send(response, 200, viewOf(this.#find(read), redaction));
    if (what === "GET /api/events") return this.#events(response);
    if (what === "GET /api/har") return this.#har(query, redaction, response);
    const [, repeat] = /^POST \/api\/exchanges\/(\d{1,15})\/replay$/.exec(what) ?? [];
    if (repeat === undefined && what !== "POST /api/clear") {
      throw new AppError("not_found", "there is nothing at this address");
    }
    if (!rights.act) throw new AppError("denied", "only whose intercept it is may do that");
    if (repeat !== undefined) return send(response, 200, viewOf(await this.#replay(repeat, query), redaction));
    this.#options.replayedTo.clear();
    this.#live.cleared();
    send(response, 200, {});
  }

  async #replay(id: string, query: URLSearchParams): Promise<Exchange> {
    const to = query.get("to");
    if (to !== "laptop" && to !== "pod")
      throw new AppError("usage", `"to" is ${to ?? "absent"}, expected laptop or pod`);
    const { replayedTo: recorder, dial, clock } = this.#options;
    return await replay(this.#find(id), to, { recorder, dial, clock }, this.#gone.signal);
  }

  #events(response: ServerResponse): void {
    if (this.#live.pages >= maxPages) {
      throw new AppError("busy", `this page is open ${maxPages} times already, close one`);
    }
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    this.#live.add(response);
  }

  async #har(
    query: URLSearchParams,
    redaction: CallsOptions["redaction"] | undefined,
    response: ServerResponse,
  ): Promise<void> {
    const wanted = query.get("ids");
    const ids = new Set(wanted?.split(",").map(Number));
    const { recorder } = this.#options;
    const chosen = [...recorder.exchanges].filter(({ id }) => wanted === null || ids.has(id));
    response.setHeader("content-disposition", 'attachment; filename="telepresence.har"');
    const views = chosen.values().map((exchange) => viewOf(exchange, redaction));
    response.writeHead(200, { "content-type": "application/json" });
    const oneByOne = Readable.from(harPieces(views, softwareVersion), { highWaterMark: 1 });
    await pipeline(oneByOne, response);
  }

  #find(id: string): Exchange {
    const exchange = this.#options.recorder.find(Number(id));
    if (exchange !== undefined) return exchange;
    throw new AppError("not_found", "this request is not kept any more");
  }
}

/** Ends an answer that could not be given. */
export function sendError(response: ServerResponse, error: unknown): void {
  if (!response.headersSent) send(response, statusOf(error), { error: toAppError(error).message });
  else response.destroy();
}

function statusOf(error: unknown): number {
  const { code } = toAppError(error);
  if (code === "unauthorized") return 401;
  if (code === "denied") return 403;
  if (code === "not_found") return 404;
  if (code === "busy") return 429;
  return code === "internal" ? 500 : 400;
}

function send(response: ServerResponse, status: number, value: object): void {
  const body = Buffer.from(JSON.stringify(value));
  response.writeHead(status, { "content-type": "application/json", "content-length": body.length });
  response.end(body);
}
