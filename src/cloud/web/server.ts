// The one port. A request's host name says whose it is: our own pages, a preview, or nobody's. Node's own limits hold
// for heads; bodies are bounded by whoever reads them, because a preview may take an upload of any size.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createSecureServer } from "node:http2";
import type { Http2SecureServer, Http2Session } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { getRequestListener } from "@hono/node-server";
import { AppError } from "#base/error.ts";
import type { CloudConfig, TlsFiles } from "#cloud/config.ts";
import { everyAddress } from "#tunnel/every-address.ts";
import type { App } from "./app.ts";
import { podPaths } from "./health.ts";

/** Whoever serves the preview hosts. HTTP/2 comes in the same form (node:http2's compatibility). */
export interface PreviewHandler {
  request(request: IncomingMessage, response: ServerResponse): void;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

/** An upgrade of our own host: the manager's tunnel, the dashboard's live view. */
export interface UpgradeHandler {
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

export interface Handlers {
  readonly app: App;
  readonly previews: PreviewHandler | undefined;
  /** By path. */
  readonly upgrades: ReadonlyMap<string, UpgradeHandler>;
}

/** chosen: heads of requests; requests at once on one connection of HTTP/2, where Node has no limit. */
const [maxHeaderBytes, headMs, keepAliveMs, maxConcurrentStreams] = [32 * 1024, 10_000, 65_000, 100];

const limits = {
  maxHeaderSize: maxHeaderBytes,
  headersTimeout: headMs,
  requestTimeout: 0,
  keepAliveTimeout: keepAliveMs,
} as const;

function secureOptions({ cert, key }: TlsFiles): Parameters<typeof createSecureServer>[0] {
  try {
    const settings = { maxConcurrentStreams, maxHeaderListSize: maxHeaderBytes };
    const files = { cert: readFileSync(cert), key: readFileSync(key) };
    return { ...limits, ...files, allowHTTP1: true, minVersion: "TLSv1.2", handshakeTimeout: headMs, settings };
  } catch (cause) {
    throw new AppError("invalid_config", `the certificate cannot be read: ${(cause as Error).message}`, { cause });
  }
}

async function listening(server: Server | Http2SecureServer, { listen }: CloudConfig): Promise<void> {
  try {
    await once(server, "listening");
  } catch (cause) {
    const busy = (cause as NodeJS.ErrnoException).code === "EADDRINUSE";
    const place = `${listen.host}:${listen.port}`;
    throw new AppError(
      busy ? "port_in_use" : "invalid_config",
      busy ? `${place} is in use by another program` : `${place} cannot be listened on: ${(cause as Error).message}`,
      { cause, hint: "choose another address with --listen HOST:PORT" },
    );
  }
}

/** A name that is not ours is nobody's: a page elsewhere may have led its own name to our address. */
export function placeOf(request: IncomingMessage, config: CloudConfig): "own" | "preview" | "nobody" {
  const authority = request.headers[":authority"];
  const host = (typeof authority === "string" ? authority : (request.headers.host ?? "")).toLowerCase();
  if (host === config.url.host) return "own";
  const name = host.replace(/:\d+$/, "");
  if (config.previewDomain !== undefined && name.endsWith(`.${config.previewDomain}`)) return "preview";
  return podPaths.has(request.url ?? "") ? "own" : "nobody";
}

function refuse(response: ServerResponse, { url }: CloudConfig): void {
  const text = `This server does not serve that host name; it is at ${url.origin}\n`;
  response.writeHead(421, { "content-type": "text/plain; charset=utf-8", "content-length": text.length });
  response.end(text);
}

const speaksHttp2 = (socket: Duplex): boolean => "alpnProtocol" in socket && socket.alpnProtocol === "h2";

/** Listens from the start, so that its port is known; serves from `serve` on, which follows in the same turn. */
export class CloudServer implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server | Http2SecureServer;
  readonly #sessions = new Set<Http2Session>();
  /** All, as TCP has them. */
  readonly #sockets = new Set<Socket>();
  /**
   * Those that may have a request, as HTTP has them (with TLS another object, which closes a turn later), with how many of
   * HTTP/1.1 are not answered yet.
   */
  readonly #serving = new Map<Duplex, number>();
  /** Upgraded ones end when they are told to: nobody waits for them. */
  #onNoneServing: (() => void) | undefined;

  private constructor(server: Server | Http2SecureServer, isSecure: boolean) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on("connection", (socket: Socket) => {
      socket.setNoDelay(true); // Node does so for HTTP/1.1 alone; a head and its body would wait 40 ms for an ACK
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on(isSecure ? "secureConnection" : "connection", (socket: Duplex) => {
      if (this.#onNoneServing !== undefined) {
        socket.destroy(); // it was accepted before the end began, and is ready for its first request only now
        return;
      }
      this.#serving.set(socket, 0);
      socket.once("close", () => this.#servesNoMore(socket));
    });
    server.on("session", (session: Http2Session) => {
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
    });
  }

  static async listen(config: CloudConfig): Promise<CloudServer> {
    const server = config.tls === undefined ? createServer(limits) : createSecureServer(secureOptions(config.tls));
    const { port, host } = config.listen;
    server.listen(port, host === "::" ? await everyAddress() : host);
    await listening(server, config);
    return new CloudServer(server, config.tls !== undefined);
  }

  serve(config: CloudConfig, { app, previews, upgrades }: Handlers): void {
    const own = getRequestListener(app.fetch, { overrideGlobalObjects: false });
    this.#server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      if (request.httpVersionMajor < 2) this.#countUntilAnswered(request, response);
      const place = placeOf(request, config);
      if (place === "own") void own(request, response);
      else if (place === "preview" && previews !== undefined) previews.request(request, response);
      else refuse(response, config);
    });
    this.#server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      socket.on("error", () => socket.destroy());
      this.#servesNoMore(socket);
      const place = placeOf(request, config);
      const path = (request.url ?? "").split("?")[0] ?? "";
      const handler = place === "own" ? upgrades.get(path) : place === "preview" ? previews : undefined;
      if (handler !== undefined) handler.upgrade(request, socket, head);
      else socket.end("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    });
  }

  /** Takes no more connections; those with a request have until `expired`. */
  async close(expired: Promise<unknown>): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#sessions) session.close();
    for (const [socket, requests] of this.#serving) if (requests === 0 && !speaksHttp2(socket)) socket.destroy();
    const noneServing = new Promise<void>((resolve) => (this.#onNoneServing = resolve));
    if (this.#serving.size === 0) this.#onNoneServing?.();
    await Promise.race([closed, noneServing, expired]);
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  /** Node would keep the connection for its next request, at the end, too; and knows of idle ones without TLS only. */
  #countUntilAnswered({ socket }: IncomingMessage, response: ServerResponse): void {
    const count = (by: 1 | -1): number => {
      const requests = (this.#serving.get(socket) ?? 0) + by;
      if (this.#serving.has(socket)) this.#serving.set(socket, requests);
      return requests;
    };
    count(1);
    response.once("close", () => {
      if (count(-1) === 0 && this.#onNoneServing !== undefined) socket.destroySoon();
    });
  }

  #servesNoMore(socket: Duplex): void {
    this.#serving.delete(socket);
    if (this.#serving.size === 0) this.#onNoneServing?.();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close(Promise.resolve());
  }
}
