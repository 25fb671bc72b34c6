// Sends a recorded request once more, to the local process or to the application in the pod, and records what comes.
import { connect as connectHttp2, constants } from "node:http2";
import { duplexPair } from "node:stream";
import type { Duplex } from "node:stream";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import type { Exchange, Origin, Route } from "./exchange.ts";
import type { Recorder } from "./recorder.ts";

export interface ReplayOptions {
  readonly recorder: Recorder;
  /** The connection that a request of this route would take. */
  readonly dial: (route: Route, to: Origin["answeredBy"], signal: AbortSignal) => Promise<Duplex>;
  readonly clock: Clock;
}

/** chosen: an answer that takes longer goes on, and is seen as one under way. */
const answerMs = 30_000;

/** Of one connection, and so no part of the request (RFC 9110 §7.6.1), or set anew here. */
const leftOut = new Set(
  "connection keep-alive proxy-connection te transfer-encoding upgrade expect content-length http2-settings".split(" "),
);

/** Resolves with the new exchange when its answer is whole, or when nobody should wait for it any longer. */
export async function replay(
  exchange: Exchange,
  to: Origin["answeredBy"],
  { recorder, dial, clock }: ReplayOptions,
  signal: AbortSignal,
): Promise<Exchange> {
  refuse(exchange);
  const body = exchange.requestBody.read(); // the exchange may be forgotten while this waits
  using limit = deadline(clock, answerMs, "the answer to the repeated request", signal);
  const far = await dial(exchange.route, to, limit.signal);
  const [near, joined] = duplexPair();
  const origin: Origin = { answeredBy: to, repeats: exchange.id };
  const { promise: begun, resolve } = Promise.withResolvers<Exchange>();
  const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
  using _listening = recorder.onChange((changed) => {
    if (changed.origin !== origin) return;
    resolve(changed);
    if (changed.state !== "open") settle();
  });
  const { closed, destroy } = joinDuplex(joined, far);
  recorder.tap(exchange.route, joined, far, origin);
  near.on("error", () => undefined); // both ends of the pair hear it; `closed` tells
  try {
    if (exchange.line.version === "HTTP/2") sendHttp2(exchange, body, near);
    else sendHttp1(exchange, body, near);
    await Promise.race([settled, closed, raceSignal(settled, limit.signal).catch(() => undefined)]);
    return await raceSignal(begun, limit.signal);
  } finally {
    destroy();
  }
}

function refuse({ status, requestBody, times }: Exchange): void {
  if (requestBody.isCut) {
    const mebibytes = (requestBody.heldBytes / 1024 / 1024).toFixed(1);
    throw new AppError(
      "unsupported",
      `only the first ${mebibytes} MiB of this request's body were kept, so it cannot be sent again`,
    );
  }
  if (times.requestEnd === undefined) {
    throw new AppError("unsupported", "this request was not sent as a whole, so it cannot be sent again");
  }
  if (status === 101) throw new AppError("unsupported", "a WebSocket or another upgrade cannot be sent again");
}

function sendHttp1({ line, requestFields }: Exchange, body: Buffer, near: Duplex): void {
  near.resume();
  const lines = requestFields.filter(({ name }) => !leftOut.has(name)).map(({ name, value }) => `${name}: ${value}`);
  const hasLength = body.length > 0 || requestFields.some(({ name }) => name === "content-length");
  if (hasLength) lines.push(`content-length: ${body.length}`);
  lines.push("connection: close");
  near.write(Buffer.from(`${line.method} ${line.target} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`, "latin1"));
  if (body.length > 0) near.write(body);
}

function sendHttp2({ line, requestFields }: Exchange, body: Buffer, near: Duplex): void {
  const session = connectHttp2("http://process", { createConnection: () => near });
  session.on("error", () => undefined); // the exchange is cut then
  const headers: Record<string, string | string[]> = {
    [constants.HTTP2_HEADER_METHOD]: line.method,
    [constants.HTTP2_HEADER_PATH]: line.target,
    [constants.HTTP2_HEADER_AUTHORITY]: line.host,
  };
  for (const { name, value } of requestFields) {
    if (leftOut.has(name) && name !== "te") continue;
    const known = headers[name];
    if (known === undefined) headers[name] = value;
    else headers[name] = Array.isArray(known) ? [...known, value] : [known, value];
  }
  const stream = session.request(headers, { endStream: body.length === 0 });
  stream.on("error", () => undefined);
  stream.resume();
  stream.once("close", () => session.close());
  if (body.length > 0) stream.end(body);
}
