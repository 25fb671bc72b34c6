// Header lists of HTTP/2 as Node gives and takes them: flat lists of names and values, in order, nothing joined. What came
// goes on as it came, and what must not be kept in tables (RFC 7541 §7.1.3) stays so.
import { constants, sensitiveHeaders } from "node:http2";
import type { Http2Stream, IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { isGrpc } from "#filter/request-view.ts";
import type { AskedRequest } from "#agent/decisions.ts";
import type { ReceivedHead } from "#agent/kept-heads.ts";
import { isHealthCheck } from "#agent/inbound/probes.ts";

/** The bit of a HEADERS frame that says that no body follows. */
const endStreamFlag = 1;

export function endsStream(flags: number): boolean {
  return (flags & endStreamFlag) !== 0;
}

/** Its 'end' says nothing: a reset, or the end of the connection, came before the last byte. */
export function isCut(stream: Http2Stream): boolean {
  return stream.destroyed || (stream.rstCode !== undefined && stream.rstCode !== constants.NGHTTP2_NO_ERROR);
}

/** Where there are none, Node ends the stream without. */
export function sendTrailers(stream: Http2Stream, trailers: Fields | undefined): void {
  sendOn(stream, () => stream.sendTrailers(trailers?.byName() ?? {}));
}

/** Node takes in header lists that it refuses to send (`http2-settings` in one is enough): such a stream is reset. */
export function sendOn(stream: Http2Stream, send: () => void): void {
  if (stream.closed || stream.destroyed) return;
  try {
    send();
  } catch {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }
}

/** A header list that goes on. */
export class Fields {
  readonly list: readonly string[];
  readonly #sensitive: readonly string[];

  constructor(list: readonly string[], headers: IncomingHttpHeaders) {
    this.list = list;
    this.#sensitive = (Reflect.get(headers, sensitiveHeaders) as string[] | undefined) ?? [];
  }

  valueOf(name: string): string | undefined {
    const { list } = this;
    for (let at = 0; at < list.length; at += 2) if (list[at] === name) return list[at + 1];
    return undefined;
  }

  with(name: string, value: string): Fields {
    return new Fields([...this.list, name, value], { [sensitiveHeaders]: [...this.#sensitive] });
  }

  /** For a request: its own `host` keeps Node from adding an `:authority` that nobody has sent. */
  forRequest(): readonly string[] {
    return Object.assign(this.forAnswer(), { host: this.valueOf("host") ?? "" });
  }
  /** Node adds to the list that it is given. */
  forAnswer(): string[] {
    return Object.assign([...this.list], { [sensitiveHeaders]: this.#sensitive });
  }
  /** For trailers and interim answers, which Node takes only by name; the lines of one name keep their order. */
  byName(): OutgoingHttpHeaders {
    const names = new Map<string, string[]>();
    for (let at = 0; at + 1 < this.list.length; at += 2) {
      const [name = "", value = ""] = this.list.slice(at, at + 2);
      const known = names.get(name);
      if (known === undefined) names.set(name, [value]);
      else known.push(value);
    }
    return { ...Object.fromEntries(names), [sensitiveHeaders]: this.#sensitive } as OutgoingHttpHeaders;
  }
}

/** For a decision over a request. CONNECT may have no path; its authority is what is asked for. */
export function askedOf(fields: Fields): AskedRequest {
  const headers: { readonly name: string; readonly value: string }[] = [];
  for (let at = 0; at + 1 < fields.list.length; at += 2) {
    const name = fields.list[at] ?? "";
    if (!name.startsWith(":")) headers.push({ name, value: fields.list[at + 1] ?? "" });
  }
  const authority = fields.valueOf(":authority") ?? fields.valueOf("host") ?? "";
  return { method: fields.valueOf(":method") ?? "", target: fields.valueOf(":path") ?? authority, authority, headers };
}

/** Is in no name and in no value. */
const betweenFields = "\n";

/** What `askedOf` makes of it can be had again of these bytes. */
export function encodeHead({ method, target }: AskedRequest, { list }: Fields): ReceivedHead {
  const bytes = Buffer.from(`${method} ${target} HTTP/2\r\n${list.join(betweenFields)}`, "latin1");
  return { bytes, headBytes: bytes.length, read: readAsked };
}

function readAsked(bytes: Buffer): AskedRequest {
  const text = bytes.toString("latin1");
  return askedOf(new Fields(text.slice(text.indexOf("\r\n") + 2).split(betweenFields), {}));
}

/** gRPC's UNAVAILABLE. */
const grpcUnavailable = "14";

export interface OwnHttp2Answer {
  readonly headers: OutgoingHttpHeaders;
  /** Undefined: the headers are all. */
  readonly body: string | undefined;
}

/** An answer of our own, in the form that its caller understands: gRPC's has its status in trailers alone. */
export function ownAnswer(request: AskedRequest, text: string): OwnHttp2Answer {
  const type = request.headers.find(({ name }) => name === "content-type")?.value ?? "";
  if (isGrpc(type)) {
    const message = { "grpc-status": grpcUnavailable, "grpc-message": encodeGrpcMessage(text) };
    return { headers: { ":status": 200, "content-type": type, ...message }, body: undefined };
  }
  const body = `${text}\n`;
  const headers = {
    ":status": 502,
    "content-type": "text/plain; charset=utf-8",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  };
  return { headers, body: request.method === "HEAD" ? undefined : body };
}

/** gRPC's `HealthCheckResponse` that says SERVING, in its frame. */
const servingMessage = Buffer.from([0, 0, 0, 0, 2, 8, 1]);

/** The answer to a probe that is the agent's to answer. */
export function answerProbe(stream: ServerHttp2Stream, request: AskedRequest): void {
  stream.resume(); // what it says is not needed
  if (isHealthCheck(request)) {
    stream.on("wantTrailers", () => sendOn(stream, () => stream.sendTrailers({ "grpc-status": "0" })));
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.end(servingMessage);
  } else {
    stream.respond({ ":status": 200, "content-type": "text/plain; charset=utf-8" });
    stream.end("answered by the traffic-agent\n");
  }
}

/** Percent-encodes all but printable ASCII, and the percent sign. */
function encodeGrpcMessage(text: string): string {
  const escape = (byte: number): string => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  const isPlain = (byte: number): boolean => byte >= 0x20 && byte <= 0x7e && byte !== 0x25;
  return Array.from(Buffer.from(text), (byte) => (isPlain(byte) ? String.fromCharCode(byte) : escape(byte))).join("");
}

/**
 * The GOAWAY that announces another (RFC 9113 §6.8): no new streams, please, but those on their way are taken still.
 * Node can only send the one after which it ignores them.
 */
export function encodeShutdownNotice(): Buffer {
  const lastStreamId = 0x7fffffff;
  const frame = Buffer.alloc(17); // header of 9 bytes, last stream, code NO_ERROR
  frame.writeUInt8(8, 2); // length of what follows the header
  frame.writeUInt8(7, 3); // type GOAWAY
  frame.writeUInt32BE(lastStreamId, 9);
  return frame;
}
