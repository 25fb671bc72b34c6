// The HTTP door: CONNECT, and requests in absolute form (RFC 9112 §3.2). What a web page can make a browser send to a
// port of this laptop is in origin form, whatever name it was reached by: refused, and the connection closed.
// @to daemon/proxy/reach.ts
import { createServer, request as openRequest, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { finished, pipeline } from "node:stream";
import { AppError, toAppError } from "#base/error.ts";
import { hopFields } from "#http/hop-fields.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { openDoor, type Door } from "./listener.ts";
import type { Target } from "./reach.ts";
import type { ProxyOptions } from "./socks.ts";
import { isHostName } from "./socks-messages.ts";

/** chosen: a server that was told that nothing more comes closes within this. */
const lingerMs = 5000;

export async function openHttpProxy(options: ProxyOptions): Promise<Door> {
  const server = createServer({ requestTimeout: 0, noDelay: true }); // an upload may take as long as it likes
  server.on("request", (request, response) => void serve(request, response, options));
  server.on("connect", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    void tunnel(request, socket, head, options);
  });
  return await openDoor({ name: "HTTP", port: options.port, log: options.log }, (socket) => {
    server.emit("connection", socket);
    socket.resume();
  });
}

// ---- CONNECT

async function tunnel(
  { url = "" }: IncomingMessage,
  socket: Socket,
  head: Buffer,
  { reach, log }: ProxyOptions,
): Promise<void> {
  const gone = goneSignal(socket);
  try {
    const stream = await reach.tcp(parseAuthority(url, undefined), gone);
    if (socket.destroyed) {
      stream.destroy();
      return;
    }
    socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
    if (head.length > 0) socket.unshift(head);
    joinDuplex(socket, stream);
  } catch (error) {
    const { status, text } = describeFailure(error);
    log.debug("an HTTP proxy connection failed", { target: url, error: text });
    if (socket.destroyed) return;
    const body = `telepresence: ${text}\n`;
    const length = Buffer.byteLength(body);
    socket.end(
      `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n${body}`,
    );
  }
}

// ---- requests in absolute form

async function serve(request: IncomingMessage, response: ServerResponse, options: ProxyOptions): Promise<void> {
  const gone = goneSignal(response);
  for (const end of [request, response]) end.on("error", () => undefined); // 'close' follows
  try {
    const { target, authority, path } = parseAbsolute(request.url ?? "");
    const stream = await options.reach.tcp(target, gone);
    stream.on("error", () => undefined); // the exchange's own error follows
    if (response.destroyed) {
      stream.destroy();
      return;
    }
    try {
      exchange(request, response, { stream, authority, path }, options);
    } catch (error) {
      stream.destroy();
      throw error;
    }
  } catch (error) {
    refuse(response, error, options);
  }
}

interface Origin {
  readonly stream: Duplex;
  readonly authority: string;
  readonly path: string;
}

/** One request on a connection of its own. */
function exchange(
  request: IncomingMessage,
  response: ServerResponse,
  { stream, authority, path }: Origin,
  options: ProxyOptions,
): void {
  const headers = [...endToEnd(request.rawHeaders, ["host", "expect"]), "Host", authority, "Connection", "close"];
  if (request.headers["transfer-encoding"] !== undefined) headers.push("Transfer-Encoding", "chunked");
  const outgoing = openRequest({ method: request.method, path, headers, createConnection: () => stream });
  outgoing.on("error", (error) => {
    stream.destroy();
    refuse(response, error, options);
  });
  outgoing.once("response", (incoming) => {
    response.writeHead(incoming.statusCode ?? 502, incoming.statusMessage, endToEnd(incoming.rawHeaders, []));
    pipeline(incoming, response, () => closeSoon(stream, options));
  });
  response.once("close", () => {
    if (!response.writableFinished) outgoing.destroy();
  });
  pipeline(request, outgoing, () => undefined); // whoever breaks it off is heard of above
}

function closeSoon(stream: Duplex, { clock }: ProxyOptions): void {
  if (stream.destroyed) return;
  stream.end();
  stream.resume();
  const timer = clock.after(lingerMs, () => stream.destroy());
  finished(stream, () => timer[Symbol.dispose]());
}

function refuse(response: ServerResponse, error: unknown, { log }: ProxyOptions): void {
  const { status, text } = describeFailure(error);
  log.debug("an HTTP proxy request failed", { error: text });
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const code = Number.parseInt(status, 10);
  response.writeHead(code, { "Content-Type": "text/plain", Connection: "close" });
  response.end(`telepresence: ${text}\n`);
}

// ---- what is asked for

/** `http://host:port/path`; throws `usage` for any other form. */
function parseAbsolute(url: string): { readonly target: Target; readonly authority: string; readonly path: string } {
  const [, authority, rest = "/"] = /^http:\/\/([^/?#@]+)([/?].*)?$/i.exec(url) ?? [];
  if (authority === undefined) {
    throw new AppError("usage", "this is a proxy of telepresence, expected a request such as GET http://host/path");
  }
  return { target: parseAuthority(authority, 80), authority, path: rest.startsWith("/") ? rest : `/${rest}` };
}

/** `host:port`, `[::1]:port`. */
function parseAuthority(text: string, usualPort: number | undefined): Target {
  const [, bracketed, plain, digits] = /^(?:\[([\da-fA-F:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = digits === undefined ? usualPort : Number(digits);
  if (host !== undefined && port !== undefined && port > 0 && port < 65_536) {
    if (bracketed !== undefined || isHostName(host)) return { host, port };
  }
  throw new AppError("usage", `"${text.slice(0, 300)}" is no host and port`);
}

/** Names and values in turn, as they were spelled. */
function endToEnd(raw: readonly string[], without: readonly string[]): string[] {
  const named = raw.flatMap((name, index) =>
    index % 2 === 0 && name.toLowerCase() === "connection" ? (raw[index + 1] ?? "").toLowerCase().split(/[\s,]+/) : [],
  );
  const dropped = new Set([...hopFields, ...named, ...without]);
  dropped.delete("content-length"); // without it a body would be read as the next request
  return raw.filter((_, index) => !dropped.has((raw[index - (index % 2)] ?? "").toLowerCase()));
}

function describeFailure(error: unknown): { readonly status: string; readonly text: string } {
  const { code, message } = toAppError(error);
  const statuses: Partial<Record<typeof code, string>> = {
    usage: "400 Bad Request",
    denied: "403 Forbidden",
    timeout: "504 Gateway Timeout",
  };
  return { status: statuses[code] ?? "502 Bad Gateway", text: message };
}

/** Aborts when the program has gone. */
function goneSignal(end: Socket | ServerResponse): AbortSignal {
  const gone = new AbortController();
  end.once("close", () => gone.abort(new AppError("cancelled", "the program has gone")));
  return gone.signal;
}
