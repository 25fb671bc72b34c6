// The inspector's page and its data over HTTP, on the loopback alone. Any program and any web page of this machine can
// reach such a port, so: the name in Host must be ours (a page elsewhere may have led its own name here), no Origin but
// our own, and each call carries the token of the address that `telepresence dashboard` printed. It stands behind `#`,
// which browsers do not send, and goes in a header, not in a cookie, which every port of this host would get.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { ask, askKernel, isWelcome } from "#daemon/own-programs.ts";
import { tellsOwners } from "#kernel/sock-diag.ts";
import { InspectorCalls, sendError } from "./calls.ts";
import type { CallsOptions } from "./calls.ts";
import { Tickets } from "./tickets.ts";

/** A file of the page. */
export interface Asset {
  readonly type: string;
  readonly body: Buffer;
}

export interface InspectorOptions extends CallsOptions {
  readonly log: Logger;
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
export const maxHeadBytes = 256 * 1024;

export const securityHeaders = {
  "content-security-policy": contentPolicy,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

export class InspectorServer implements AsyncDisposable {
  readonly #options: InspectorOptions;
  readonly #calls: InspectorCalls;
  readonly #token = randomBytes(32).toString("base64url");
  readonly #tickets: Tickets;
  #server: Server | undefined;
  #port = 0;
  /** Connections of other users are refused. */
  #isOwnOnly = false;

  private constructor(options: InspectorOptions) {
    this.#options = options;
    this.#calls = new InspectorCalls(options);
    this.#tickets = new Tickets(options.clock);
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
    inspector.#isOwnOnly = tellsOwners({ address: "127.0.0.1", port: inspector.#port }, "tcp");
    if (inspector.#isOwnOnly) {
      server.on("connection", (socket) => {
        if (!isWelcome(ask(() => askKernel(socket), options.log))) socket.destroy();
      });
    }
    return inspector;
  }

  /** Who has it may see the requests: for the user's own browser. */
  get url(): string {
    return `http://127.0.0.1:${this.#port}/#${this.#token}`;
  }
  /**
   * For a browser that is started: others see its words, so this address is good once, for a minute, and where the
   * kernel tells whose a connection is. Undefined elsewhere.
   */
  newOpenUrl(): string | undefined {
    return this.#isOwnOnly ? `http://127.0.0.1:${this.#port}/open/${this.#tickets.add()}` : undefined;
  }
  /** Pages that are open. */
  get pages(): number {
    return this.#calls.pages;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#calls[Symbol.dispose]();
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
      sendError(response, error);
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
    if (request.method === "GET" && this.#tickets.use(url.pathname.replace(/^\/open\//, ""))) {
      response.writeHead(303, { location: `/#${this.#token}`, "content-length": 0 });
      response.end();
      return;
    }
    this.#mustHaveToken(request);
    const what = `${request.method} ${url.pathname}`;
    await this.#calls.answer(what, url.searchParams, response, { reveal: true, act: true });
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
