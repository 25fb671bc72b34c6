// Exchanges as the page is told of them, secrets hidden unless they were asked for.
import { brotliDecompressSync, gunzipSync, inflateSync, zstdDecompressSync } from "node:zlib";
import type { HeaderField } from "#http/head.ts";
import type { BodyView, ExchangeSummary, ExchangeView, HeaderView } from "#wire/inspector-api.ts";
import type { BodyCopy } from "./body-copy.ts";
import type { Exchange } from "./exchange.ts";
import type { Redaction } from "./redaction.ts";

/** chosen: what a coding may grow to; a small body can mean gigabytes. */
const maxDecodedBytes = 4 * 1024 * 1024;
/** chosen: of what is no text. */
const shownBinaryBytes = 64 * 1024;

/** Undefined redaction hides nothing. */
export function summarise(exchange: Exchange, redaction: Redaction | undefined): ExchangeSummary {
  const { id, revision, route, line, status, state, startedAt, times, repeats, answeredBy } = exchange;
  const grpcStatus = valueOf(exchange.answerTrailers, "grpc-status") ?? valueOf(exchange.answerFields, "grpc-status");
  const contentType = valueOf(exchange.answerFields, "content-type");
  return {
    id,
    revision,
    intercept: route.intercept,
    podName: route.podName,
    caller: route.caller,
    method: line.method,
    target: redaction?.target(line.target) ?? line.target,
    host: line.host,
    version: line.version,
    state,
    startedAt,
    requestBytes: exchange.requestBody.bytes,
    answerBytes: exchange.answerBody.bytes,
    answeredBy,
    ...defined({ status, contentType, repeats }),
    ...defined({ grpcStatus: grpcStatus === undefined ? undefined : Number(grpcStatus) }),
    ...defined({ requestEndMs: times.requestEnd, answerStartMs: times.answerStart, answerEndMs: times.answerEnd }),
  };
}

export function viewOf(exchange: Exchange, redaction: Redaction | undefined): ExchangeView {
  return {
    ...summarise(exchange, redaction),
    processAddress: exchange.route.target,
    ...defined({ linkMs: exchange.linkMs }),
    requestHeaders: headersOf(exchange.requestFields, redaction),
    requestBody: bodyOf(exchange.requestBody, exchange.requestFields, redaction),
    answerHeaders: headersOf(exchange.answerFields, redaction),
    answerTrailers: headersOf(exchange.answerTrailers, redaction),
    answerBody: bodyOf(exchange.answerBody, exchange.answerFields, redaction),
  };
}

export function valueOf(fields: readonly HeaderField[], name: string): string | undefined {
  return fields.find((field) => field.name === name)?.value;
}

function headersOf(fields: readonly HeaderField[], redaction: Redaction | undefined): HeaderView[] {
  return fields.map(({ name, value }) => {
    const { text, hidden } = redaction?.value(name, value) ?? { text: value, hidden: false };
    return hidden ? { name, value: text, hidden } : { name, value: text };
  });
}

function bodyOf(body: BodyCopy, fields: readonly HeaderField[], redaction: Redaction | undefined): BodyView {
  const { bytes, isCut: cut } = body;
  const coding = valueOf(fields, "content-encoding")?.toLowerCase();
  const content = coding === undefined || cut ? body.read() : decoded(body.read(), coding);
  if (content === undefined) return { ...binary(body.read(), bytes, cut), ...defined({ coding }) };
  const text = asText(content, cut);
  if (text === undefined) return { ...binary(content, bytes, cut), ...defined({ coding }) };
  const shown = redaction?.body(text, valueOf(fields, "content-type") ?? "") ?? { text, hidden: false };
  return { bytes, cut, ...defined({ coding }), ...shown };
}

function binary(content: Buffer, bytes: number, cut: boolean): BodyView {
  const base64 = content.subarray(0, shownBinaryBytes).toString("base64");
  return { bytes, cut: cut || content.length > shownBinaryBytes, base64, hidden: false };
}

function decoded(body: Buffer, coding: string): Buffer | undefined {
  const limit = { maxOutputLength: maxDecodedBytes };
  try {
    if (coding === "gzip" || coding === "x-gzip") return gunzipSync(body, limit);
    if (coding === "deflate") return inflateSync(body, limit);
    if (coding === "br") return brotliDecompressSync(body, limit);
    if (coding === "zstd") return zstdDecompressSync(body, limit);
  } catch {
    return undefined; // not what it says it is
  }
  return coding === "identity" ? body : undefined;
}

/** Undefined for what is no UTF-8, or holds what no text does. */
function asText(content: Buffer, cut: boolean): string | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(content, { stream: cut });
    return /[\u0000-\u0008\u000e-\u001a\u007f]/.test(text) ? undefined : text; // oxlint-disable-line no-control-regex
  } catch {
    return undefined;
  }
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
