// The inspector's page and its data over HTTP, on the loopback alone. Any program and any web page of this machine can
// reach such a port, so: the name in Host must be ours (a page elsewhere may have led its own name here), no Origin but
// our own, and each call carries the token of the address that `telepresence dashboard` printed. It stands behind `#`,
// which browsers do not send, and goes in a header, not in a cookie, which every port of this host would get.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { AppError, toAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import type { Exchange } from "./exchange.ts";
import { harPieces } from "./har.ts";
import { Live, maxPages } from "./live.ts";
import type { LiveOptions } from "./live.ts";
import { replay } from "./replay.ts";
import type { ReplayOptions } from "./replay.ts";
import { viewOf } from "./view.ts";

/** A file of the page. */
export interface Asset {
  readonly type: string;
  readonly body: Buffer;
}

export interface InspectorOptions extends LiveOptions, ReplayOptions {
  /** By path; `/` is the page itself. */
  readonly assets: ReadonlyMap<string, Asset>;
}

const contentPolicy = [
  "default-src 'none'",
  ..."script-src style-src connect-src".split(" ").map((kind) => `${kind} 'self'`),
  "img-src data:", // the page has no icon, and says so
  ..."base-uri form-action frame-ancestors".split(" ").map((kind) => `${kind} 'none'`),
].join("; ");

/** chosen: an archive of all that is kept is asked for by their numbers, in the address. */
const maxHeadBytes = 256 * 1024;

const securityHeaders = {
  "content-security-policy": contentPolicy,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

export class InspectorServer implements AsyncDisposable {
  readonly #options: InspectorOptions;
  readonly #live: Live;
  readonly #token = randomBytes(32).toString("base64url");
  readonly #gone = new AbortController();
  #server: Server | undefined;
  #port = 0;

  private constructor(options: InspectorOptions) {
    this.#options = options;
    this.#live = new Live(options);
  }

  static async open(options: InspectorOptions): Promise<InspectorServer> {
    const inspector = new InspectorServer(options);
    const server = createServer(
      { maxHeaderSize: maxHeadBytes },
      (request, response) => void inspector.#serve(request, response),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    inspector.#server = server;
    inspector.#port = (server.address() as AddressInfo).port;
    return inspector;
  }

  /** Who has it may see the requests: for the user's own browser. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}/#${this.#token}`;
  }
  /** Pages that are open. */
  get pages(): number {
    return this.#live.pages;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#live[Symbol.dispose]();
    this.#gone.abort(new AppError("cancelled", "the connection to the cluster was ended"));
    const closed = new Promise<void>((resolve) => this.#server?.close(() => resolve()) ?? resolve());
    this.#server?.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => undefined); // the page is gone
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value);
    try {
      await this.#answer(request, response);
    } catch (error) {
      if (!response.headersSent) send(response, statusOf(error), { error: toAppError(error).message });
      else response.destroy();
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume(); // no call has a body
    const url = new URL(request.url ?? "/", `http://127.0.0.1:${this.#port}`);
    this.#mustBeOurs(request);
    const asset = this.#options.assets.get(url.pathname);
    if (asset !== undefined && request.method === "GET") {
      response.writeHead(200, { "content-type": asset.type, "content-length": asset.body.length });
      response.end(asset.body);
      return;
    }
    this.#mustHaveToken(request);
    await this.#call(`${request.method} ${url.pathname}`, url.searchParams, response);
  }

  async #call(what: string, query: URLSearchParams, response: ServerResponse): Promise<void> {
    const { recorder } = this.#options;
    const [, read] = /^GET \/api\/exchanges\/(\d{1,15})$/.exec(what) ?? [];
    const [, repeat] = /^POST \/api\/exchanges\/(\d{1,15})\/replay$/.exec(what) ?? [];
    if (read !== undefined) return send(response, 200, viewOf(this.#find(read), this.#redaction(query)));
    if (repeat !== undefined) return send(response, 200, await this.#replay(repeat, query));
    if (what === "GET /api/events") return this.#events(response);
    if (what === "GET /api/har") return this.#har(query, response);
    if (what !== "POST /api/clear") throw new AppError("not_found", "there is nothing at this address");
    recorder.clear();
    this.#live.cleared();
    send(response, 200, {});
  }

  async #replay(id: string, query: URLSearchParams): Promise<object> {
    const to = query.get("to");
    if (to !== "laptop" && to !== "pod")
      throw new AppError("usage", `"to" is ${to ?? "absent"}, expected laptop or pod`);
    const answered = await replay(this.#find(id), to, this.#options, this.#gone.signal);
    return viewOf(answered, this.#redaction(query));
  }

  #events(response: ServerResponse): void {
    if (this.#live.pages >= maxPages) {
      throw new AppError("busy", `this page is open ${maxPages} times already, close one`);
    }
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    this.#live.add(response);
  }

  async #har(query: URLSearchParams, response: ServerResponse): Promise<void> {
    const wanted = query.get("ids");
    const ids = new Set(wanted?.split(",").map(Number));
    const { recorder } = this.#options;
    const chosen = [...recorder.exchanges].filter(({ id }) => wanted === null || ids.has(id));
    response.setHeader("content-disposition", 'attachment; filename="telepresence.har"');
    const redaction = this.#redaction(query);
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

  /** Undefined hides nothing. */
  #redaction(query: URLSearchParams): InspectorOptions["redaction"] | undefined {
    return query.get("reveal") === "1" ? undefined : this.#options.redaction;
  }

  #mustBeOurs({ headers }: IncomingMessage): void {
    const names = [`127.0.0.1:${this.#port}`, `localhost:${this.#port}`];
    if (!names.includes(headers.host ?? "")) throw new AppError("denied", "this name is not this page's");
    const { origin } = headers;
    if (origin !== undefined && !names.some((name) => origin === `http://${name}`)) {
      throw new AppError("denied", "another page may not ask here");
    }
  }

  #mustHaveToken({ headers }: IncomingMessage): void {
    const given = digest(headers.authorization ?? "");
    if (timingSafeEqual(given, digest(`Bearer ${this.#token}`))) return;
    throw new AppError("unauthorized", "the address is not the one that `telepresence dashboard --local` printed");
  }
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
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
