// One request to the ingress and its answer, as they come: nothing is held but what is between two ends of different
// speed. A visitor who goes takes the request with him; an ingress that breaks off breaks the answer off.
import { request as sendRequest } from "node:http";
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from "node:http";
import { constants } from "node:http2";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Duplex } from "node:stream";
import { AppError } from "#base/error.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { answerHeaders, answerTrailers, takesBanner } from "./answer-headers.ts";
import { bannerOf } from "./banner.ts";
import type { IngressConnections } from "./ingress-connections.ts";
import type { Preview } from "./previews.ts";
import { requestHeaders, withoutShareToken } from "./request-headers.ts";

/** chosen: connections that were kept may have been closed meanwhile. */
const maxAttempts = 3;
const repeatable: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]);

export interface Passage {
  readonly preview: Preview;
  readonly connections: IngressConnections;
  /** The preview's. */
  readonly origin: URL;
  /** Where the banner leads. */
  readonly dashboard: string;
  /** The visitor's. */
  readonly address: string;
  /** There is no answer of the ingress, and nothing was said yet. */
  readonly onFailure: (error: Error) => void;
  /** It has begun to answer. */
  readonly onAnswer?: () => void;
}

export function forward(request: IncomingMessage, response: ServerResponse, passage: Passage, attempt = 1): void {
  const { preview, connections, origin, address, onFailure } = passage;
  const hasBody = carriesBody(request);
  const banner = wantsBanner(request, preview);
  const headers = requestHeaders(preview, { rawHeaders: request.rawHeaders, address, origin, plainBody: banner });
  const length = request.headers["content-length"];
  if (length !== undefined) headers["content-length"] = length;
  else if (hasBody) headers["transfer-encoding"] = "chunked";
  const outgoing = sendRequest({
    agent: connections,
    method: request.method ?? "GET",
    path: withoutShareToken(request.url ?? "/"),
    headers,
    setHost: false,
  });
  const onGone = (): void => {
    // an answer that ended before its request did ends that, too
    if (response.writableFinished && request.complete) return;
    outgoing.destroy();
    request.resume();
  };
  response.once("close", onGone);
  let isOver = false;
  const fail = (error: Error): void => {
    if (isOver) return;
    isOver = true;
    response.off("close", onGone);
    if (response.destroyed || response.closed) return;
    if (response.headersSent) breakOff(response);
    else if (mayRepeat(request, outgoing, hasBody) && attempt < maxAttempts)
      forward(request, response, passage, attempt + 1);
    else onFailure(error);
  };
  outgoing.on("error", fail);
  outgoing.once("upgrade", (_answer, socket: Duplex) => {
    socket.destroy();
    fail(new AppError("protocol", "it changes to a protocol that nobody asked for"));
  });
  outgoing.once("response", (answer) => {
    passage.onAnswer?.();
    try {
      passAnswer(answer, request, response, { ...passage, banner });
    } catch (error) {
      fail(error as Error);
      outgoing.destroy();
    }
  });
  if (!hasBody) {
    outgoing.end();
    return;
  }
  request.pipe(outgoing, { end: false });
  request.once("end", () => (isWhole(request) ? outgoing.end() : outgoing.destroy()));
}

/** Node ends what is read of a stream of HTTP/2, too, when the visitor has reset it without an error. */
function isWhole(request: IncomingMessage): boolean {
  if (request.httpVersionMajor < 2) return request.complete;
  return !(request as unknown as Http2ServerRequest).stream.closed;
}

function mayRepeat({ method = "" }: IncomingMessage, outgoing: ClientRequest, hasBody: boolean): boolean {
  return outgoing.reusedSocket && !hasBody && repeatable.has(method);
}

function carriesBody(request: IncomingMessage): boolean {
  if (request.httpVersionMajor >= 2) return !(request as unknown as Http2ServerRequest).stream.endAfterHeaders;
  const length = request.headers["content-length"];
  return request.headers["transfer-encoding"] !== undefined || (length !== undefined && Number(length) > 0);
}

/** Only of what a browser shows as a page of its own. */
function wantsBanner({ method, headers }: IncomingMessage, { banner }: Preview): boolean {
  if (!banner || method !== "GET" || headers.range !== undefined) return false;
  const destination = headers["sec-fetch-dest"];
  return destination === undefined ? headers.accept?.includes("text/html") === true : destination === "document";
}

function passAnswer(
  answer: IncomingMessage,
  request: IncomingMessage,
  response: ServerResponse,
  { preview, origin, dashboard, banner: isWanted }: Passage & { readonly banner: boolean },
): void {
  const status = answer.statusCode ?? 502;
  const headers = answerHeaders(answer.rawHeaders, preview, origin);
  const banner = isWanted && takesBanner(headers, status) ? bannerOf(preview, dashboard, headers) : undefined;
  if (banner !== undefined && headers["content-length"] !== undefined) {
    headers["content-length"] = String(Number(headers["content-length"]) + banner.length);
  }
  // a part of a head that is refused would stand in the answer that says so
  if (status < 200 || status > 599) throw new AppError("protocol", `its answer's status is ${status}`);
  if (request.httpVersionMajor >= 2) response.writeHead(status, headers as OutgoingHttpHeaders);
  else response.writeHead(status, withoutControls(answer.statusMessage), headers as OutgoingHttpHeaders);
  response.flushHeaders();
  answer.once("end", () => {
    if (answer.rawTrailers.length > 0) response.addTrailers(answerTrailers(answer.rawTrailers));
    if (banner !== undefined) response.end(banner);
  });
  answer.once("error", () => breakOff(response));
  answer.once("close", () => {
    if (!answer.complete) breakOff(response);
  });
  answer.pipe(response, { end: banner === undefined });
}

/** Node's parser lets them stand in a reason, and its writer throws for them. */
// eslint-disable-next-line no-control-regex -- these are what is looked for
const withoutControls = (reason = ""): string => reason.replace(/[\x00-\x1f\x7f]/g, "");

/** So that nobody takes what there is of the answer for all of it. */
export function breakOff(response: ServerResponse): void {
  const { stream } = response as unknown as Partial<Http2ServerResponse>;
  if (stream === undefined) response.destroy();
  else stream.close(constants.NGHTTP2_INTERNAL_ERROR);
}

/** A WebSocket: the two connections are one from the ingress's 101 on. */
export function forwardUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, passage: Passage): void {
  const { preview, connections, origin, address, onFailure } = passage;
  const headers = requestHeaders(preview, { rawHeaders: request.rawHeaders, address, origin, plainBody: false });
  const outgoing = sendRequest({
    createConnection: (_options, done) => void connections.openFor(done),
    method: "GET",
    path: withoutShareToken(request.url ?? "/"),
    headers: { ...headers, connection: "Upgrade", upgrade: "websocket" },
    setHost: false,
  });
  const onGone = (): void => void outgoing.destroy();
  socket.once("close", onGone);
  let isAnswered = false;
  outgoing.on("error", (error) => {
    if (isAnswered) socket.destroy();
    else if (!socket.destroyed) onFailure(error);
    isAnswered = true;
  });
  outgoing.once("upgrade", (answer, stream: Duplex, first: Buffer) => {
    isAnswered = true;
    socket.off("close", onGone);
    const { "content-length": _length, ...passed } = answerHeaders(answer.rawHeaders, preview, origin);
    socket.write(formatHead(101, "Switching Protocols", { ...passed, connection: "Upgrade", upgrade: "websocket" }));
    if (first.length > 0) socket.write(first);
    if (head.length > 0) stream.write(head);
    joinDuplex(socket, stream);
  });
  outgoing.once("response", (answer) => {
    isAnswered = true;
    const passed = answerHeaders(answer.rawHeaders, preview, origin);
    socket.write(
      formatHead(answer.statusCode ?? 502, withoutControls(answer.statusMessage), { ...passed, connection: "close" }),
    );
    answer.pipe(socket);
    answer.once("error", () => socket.destroy());
  });
  outgoing.end();
}

/** Values are an answer's that Node has read, so they have no line ends. */
function formatHead(
  status: number,
  message: string,
  headers: Readonly<Record<string, string | readonly string[]>>,
): Buffer {
  const lines = Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map((value) => `${name}: ${String(value)}\r\n`),
  );
  return Buffer.from(`HTTP/1.1 ${status} ${message}\r\n${lines.join("")}\r\n`, "latin1");
}
