// A request as expressions see it (`request.…`). Everything beyond the method is computed on first use and kept, so a
// filter on one header never parses the query. The fields here are the schema that expressions are checked against.
import { filterLimits } from "./limits.ts";
import { decodeUtf8, fromLatin1, normalizePath, parseBaggage, parseCookies, parseQuery } from "./text.ts";
import { bodyNotRead, Failure } from "./value.ts";
import type { Value } from "./value.ts";

export interface FilterRequest {
  readonly method: string;
  /** As received: origin-form, absolute-form or `*`. */
  readonly target: string;
  /** `:authority` or the Host header; the port is not looked at. */
  readonly authority: string;
  /** As received, in order, one entry per line; names in any case, bytes above 127 as Latin-1. */
  readonly headers: readonly { readonly name: string; readonly value: string }[];
  /** The whole body, if it was read; undefined means "not read", which only matters where `needsBody` is true. */
  readonly body?: Uint8Array | string | undefined;
}

/** The library's names of the types. */
export const requestSchema = {
  method: "string",
  path: "string",
  query: "map<string, list<string>>",
  headers: "map<string, string>",
  cookies: "map<string, string>",
  baggage: "map<string, string>",
  host: "string",
  body: "string",
  grpc: { service: "string", method: "string" },
} as const;

const bodyTooLong = new Failure("unusable", `the body is longer than ${filterLimits.bodyBytes} bytes`);
const requestTooLong = new Failure("unusable", "the target or the headers are longer than a filter reads");

/** Names are found in any case. */
class HeaderMap extends Map<string, string> {
  override get(name: string): string | undefined {
    return super.get(name.toLowerCase());
  }
  override has(name: string): boolean {
    return super.has(name.toLowerCase());
  }
}

type Target = { readonly path: string; readonly query: string; readonly authority: string | undefined };

export class RequestView {
  readonly #request: FilterRequest;
  #target: Target | undefined;
  #query: Map<string, string[]> | undefined;
  #headers: HeaderMap | undefined;
  #cookies: Map<string, string> | undefined;
  #baggage: Map<string, string> | undefined;
  #grpc: { readonly service: string; readonly method: string } | undefined;
  #body: string | Failure | undefined;

  constructor(request: FilterRequest) {
    this.#request = request;
  }

  /** Looked at before anything else: what follows is linear in these lengths. */
  get oversize(): Failure | undefined {
    let length = 0;
    for (const { name, value } of this.#request.headers) length += name.length + value.length;
    const { target, authority } = this.#request;
    const fits = length <= filterLimits.headerLength && target.length + authority.length <= filterLimits.targetLength;
    return fits ? undefined : requestTooLong;
  }

  get method(): string {
    return this.#request.method;
  }

  /** Without the query, in normal form, never decoded beyond that: `/a%2Fb` stays apart from `/a/b`. */
  get path(): string {
    return this.#splitTarget().path;
  }

  get query(): ReadonlyMap<string, Value> {
    return (this.#query ??= parseQuery(this.#splitTarget().query));
  }

  get headers(): ReadonlyMap<string, string> {
    return (this.#headers ??= joinHeaders(this.#request.headers));
  }

  get cookies(): ReadonlyMap<string, string> {
    return (this.#cookies ??= parseCookies(this.headers.get("cookie") ?? ""));
  }

  get baggage(): ReadonlyMap<string, string> {
    return (this.#baggage ??= parseBaggage(this.headers.get("baggage") ?? ""));
  }

  /** Lower case, without a port. */
  get host(): string {
    const authority = (this.#splitTarget().authority ?? this.#request.authority).replace(/^.*@/, "");
    return authority.replace(/:\d*$/, "").toLowerCase();
  }

  get body(): string | Failure {
    return (this.#body ??= readBody(this.#request.body));
  }

  /** Both empty when the request is not gRPC. */
  get grpc(): { readonly service: string; readonly method: string } {
    return (this.#grpc ??= readGrpc(this.headers.get("content-type") ?? "", this.path));
  }

  #splitTarget(): Target {
    return (this.#target ??= splitTarget(this.#request.target));
  }
}

function splitTarget(target: string): Target {
  const absolute = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?]*)/.exec(target);
  const rest = absolute === null ? target : target.slice(absolute[0].length);
  const mark = rest.indexOf("?");
  const path = mark < 0 ? rest : rest.slice(0, mark);
  return {
    path: path === "" ? "/" : normalizePath(fromLatin1(path)),
    query: mark < 0 ? "" : fromLatin1(rest.slice(mark + 1)),
    authority: absolute?.[1],
  };
}

/** Lines of one name are one value (RFC 9110 §5.3); the crumbs of HTTP/2's cookie header too (RFC 9113 §8.2.3). */
function joinHeaders(fields: FilterRequest["headers"]): HeaderMap {
  const joined = new HeaderMap();
  for (const { name, value } of fields) {
    if (name.startsWith(":")) continue; // HTTP/2's own fields are method, target and authority already
    const key = name.toLowerCase();
    const known = joined.get(key);
    joined.set(key, known === undefined ? value : `${known}${key === "cookie" ? "; " : ", "}${value}`);
  }
  for (const [name, value] of joined) joined.set(name, fromLatin1(value));
  return joined;
}

function readBody(body: FilterRequest["body"]): string | Failure {
  if (body === undefined) return bodyNotRead;
  if (body.length > filterLimits.bodyBytes) return bodyTooLong;
  return typeof body === "string" ? body : decodeUtf8(body);
}

export function isGrpc(contentType: string): boolean {
  return /^application\/grpc(?:[+;\s-]|$)/i.test(contentType);
}

function readGrpc(contentType: string, path: string): { readonly service: string; readonly method: string } {
  const found = isGrpc(contentType) ? /^\/([^/]+)\/([^/]+)$/.exec(path) : null;
  return { service: found?.[1] ?? "", method: found?.[2] ?? "" };
}
