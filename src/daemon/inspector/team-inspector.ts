// The inspector for team mates: a cloud server, which knows who they are, asks over streams of the tunnel. Each stream is
// of one intercept, and shows that one's requests with secrets hidden. The server says on each request whether its
// visitor is whose intercept it is; others only look.
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { AppError } from "#base/error.ts";
import { viewerHeader } from "#wire/inspector-api.ts";
import { InspectorCalls, sendError } from "./calls.ts";
import type { CallsOptions } from "./calls.ts";
import type { Recorded } from "./live.ts";
import { maxHeadBytes, securityHeaders } from "./server.ts";

/** chosen: a browser opens six connections, and a few team mates look. */
const maxStreams = 64;

interface Shown {
  readonly calls: InspectorCalls;
  readonly streams: Set<Duplex>;
}

export class TeamInspector implements Disposable {
  readonly #options: CallsOptions;
  readonly #server: Server;
  readonly #shown = new Map<string, Shown>();
  /** Of each connection, what it shows. */
  readonly #of = new WeakMap<Duplex, InspectorCalls>();

  constructor(options: CallsOptions) {
    this.#options = options;
    // It listens nowhere: connections are given to it.
    this.#server = createServer(
      { maxHeaderSize: maxHeadBytes },
      (request, response) => void this.#serve(request, response),
    );
  }

  /** Somebody looks. */
  get pages(): number {
    return this.#shown.values().reduce((sum, { streams }) => sum + streams.size, 0);
  }
  get isFull(): boolean {
    return this.pages >= maxStreams;
  }

  /** Takes the stream over. */
  serve(stream: Duplex, intercept: string): void {
    const shown = this.#shown.get(intercept) ?? this.#show(intercept);
    shown.streams.add(stream);
    this.#of.set(stream, shown.calls);
    stream.on("error", () => undefined); // whoever looked is gone
    stream.once("close", () => {
      shown.streams.delete(stream);
      if (shown.streams.size === 0 && this.#shown.get(intercept) === shown) this.#end(intercept, shown);
    });
    this.#server.emit("connection", stream);
  }

  /** Others are over, or not shared any more. */
  keepOnly(intercepts: ReadonlySet<string>): void {
    for (const [intercept, shown] of this.#shown) if (!intercepts.has(intercept)) this.#end(intercept, shown);
  }

  [Symbol.dispose](): void {
    this.keepOnly(new Set());
  }

  #end(intercept: string, { calls, streams }: Shown): void {
    this.#shown.delete(intercept);
    calls[Symbol.dispose]();
    for (const stream of streams) stream.destroy();
  }

  #show(intercept: string): Shown {
    const { recorder, intercepts } = this.#options;
    const calls = new InspectorCalls({
      ...this.#options,
      recorder: onlyOf(recorder, intercept),
      intercepts: () => {
        const all = intercepts();
        return { ...all, intercepts: all.intercepts.filter(({ name }) => name === intercept) };
      },
    });
    const shown = { calls, streams: new Set<Duplex>() };
    this.#shown.set(intercept, shown);
    return shown;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => undefined);
    request.resume(); // no call has a body
    for (const [name, value] of Object.entries(securityHeaders)) response.setHeader(name, value);
    try {
      const calls = this.#of.get(request.socket);
      if (calls === undefined) throw new AppError("not_found", "this intercept is over");
      const url = new URL(request.url ?? "/", "http://inspector");
      const act = request.headers[viewerHeader] === "owner";
      await calls.answer(`${request.method} ${url.pathname}`, url.searchParams, response, { reveal: false, act });
    } catch (error) {
      sendError(response, error);
    }
  }
}

/** As if nothing else were kept. */
function onlyOf(recorder: Recorded, intercept: string): Recorded {
  return {
    get exchanges() {
      return recorder.exchanges.filter(({ route }) => route.intercept === intercept);
    },
    get oldestId() {
      return recorder.oldestId;
    },
    find: (id) => {
      const found = recorder.find(id);
      return found?.route.intercept === intercept ? found : undefined;
    },
    onChange: (listener) =>
      recorder.onChange((exchange) => {
        if (exchange.route.intercept === intercept) listener(exchange);
      }),
  };
}
