// One request that an intercept brought here, and its answer, as far as they are known: filled in as bytes pass.
import type { HeaderField } from "#http/head.ts";
import { BodyCopy } from "./body-copy.ts";

/** Where a request came from and where it went. */
export interface Route {
  readonly intercept: string;
  readonly containerPort: number;
  readonly podName: string;
  /** The caller's address in the cluster, as `address:port`. */
  readonly caller: string;
  /** The local process, as `address:port`. */
  readonly target: string;
  /** Of the link to the cluster, as it is measured now, milliseconds. */
  readonly roundTripMs?: () => number | undefined;
}

export interface RequestLine {
  readonly method: string;
  /** As it was sent: mostly a path with its query. */
  readonly target: string;
  /** The Host header, or `:authority`. */
  readonly host: string;
  readonly version: "HTTP/1.0" | "HTTP/1.1" | "HTTP/2";
}

/** Who answers, and which exchange is repeated by `replay`. */
export interface Origin {
  readonly answeredBy: "laptop" | "pod";
  readonly repeats?: number;
}

/** `open`: under way; `done`: both messages were whole; `cut`: the connection ended before; `unread`: not HTTP any more. */
export type ExchangeState = "open" | "done" | "cut" | "unread";

/** Milliseconds since the request's first byte. */
export interface ExchangeTimes {
  requestEnd?: number;
  answerStart?: number;
  answerEnd?: number;
}

export class Exchange {
  readonly id: number;
  readonly route: Route;
  readonly line: RequestLine;
  readonly requestFields: readonly HeaderField[];
  readonly requestBody: BodyCopy;
  /** Wall-clock milliseconds. */
  readonly startedAt: number;
  readonly times: ExchangeTimes = {};
  status: number | undefined;
  answerFields: readonly HeaderField[] = [];
  readonly answerBody: BodyCopy;
  /** Those of HTTP/2, of which gRPC's status is one. */
  answerTrailers: readonly HeaderField[] = [];
  state: ExchangeState = "open";
  readonly origin: Origin;
  /** There and back between the cluster and this machine, milliseconds; of a repeated one, which began here, undefined. */
  readonly linkMs: number | undefined;
  /** Counts its changes. */
  revision = 0;

  constructor(known: {
    id: number;
    route: Route;
    line: RequestLine;
    fields: readonly HeaderField[];
    startedAt: number;
    maxBodyBytes: number;
    origin: Origin;
  }) {
    this.id = known.id;
    this.route = known.route;
    this.line = known.line;
    this.requestFields = known.fields;
    this.startedAt = known.startedAt;
    this.requestBody = new BodyCopy(known.maxBodyBytes);
    this.answerBody = new BodyCopy(known.maxBodyBytes);
    this.origin = known.origin;
    this.linkMs = known.origin.repeats === undefined ? known.route.roundTripMs?.() : undefined;
  }

  get repeats(): number | undefined {
    return this.origin.repeats;
  }
  get answeredBy(): "laptop" | "pod" {
    return this.origin.answeredBy;
  }

  /** What it costs to keep. */
  get bytes(): number {
    const fields = sizeOf(this.requestFields) + sizeOf(this.answerFields);
    return objectBytes + fields + this.requestBody.memoryBytes + this.answerBody.memoryBytes;
  }

  /** Nobody can ask for it any more; while it is under way its bodies are only counted. */
  forget(): void {
    this.requestBody.forget();
    this.answerBody.forget();
  }
}

/** measured roughly: an exchange without fields and bodies. */
const objectBytes = 600;
/** measured roughly: one field beside its text. */
const fieldBytes = 80;

function sizeOf(fields: readonly HeaderField[]): number {
  let bytes = 0;
  for (const { name, value } of fields) bytes += fieldBytes + name.length + value.length;
  return bytes;
}
