// Reads a caller's next request as far as it takes to decide who answers it: its head, and its body where a filter asks
// for it. What has been read goes on unchanged.
//
//   bytes ──► head ──decided──────────────────────────────────────► onRequest
//              └──a filter needs the body──► body, 64 KiB, 10 s ──────┘
//
// Invariants: at most one head and `filterLimits.bodyBytes` of body are held; what is unclear is told once, with all
// that was held in `held`.
import type { Clock, Timer } from "#base/clock.ts";
import { filterLimits } from "#filter/limits.ts";
import { requestBodyLength } from "#http/body-length.ts";
import { BodyScanner } from "#http/body-scanner.ts";
import { decodeChunked } from "#http/chunked-body.ts";
import { HeadScanner } from "#http/head-scanner.ts";
import { Unclear, listHolds, parseRequestHead } from "#http/head.ts";
import type { RequestHead } from "#http/head.ts";
import type { AskedRequest } from "#agent/decisions.ts";
import type { Taken } from "#agent/served.ts";
import { askedOf } from "./http-decision.ts";
import type { HttpRoutes } from "./http-decision.ts";

/** chosen: a caller that does not finish a head by then is left to the application, which has its own limit. */
const headMs = 60_000;
/** chosen: a caller that waits for an answer before it goes on with its body is decided without. */
export const bodyMs = 10_000;

export interface HttpIntakeOptions {
  readonly routes: Pick<HttpRoutes, "decide">;
  readonly clock: Clock;
  readonly onRequest: (request: TakenIn) => void;
  readonly onUnclear: (reason: string) => void;
  /** The caller waits for 100 Continue before it sends the body, which is needed now. */
  readonly askForBody: () => void;
}

/** A request that is decided. */
export interface TakenIn {
  readonly head: RequestHead;
  /** As filters see it. */
  readonly asked: AskedRequest;
  readonly body: BodyScanner;
  /** All that was read of it, the head first. */
  readonly bytes: Buffer;
  readonly headBytes: number;
  readonly taken: Taken | undefined;
}

/** A request whose body is read before it is decided. */
interface Undecided {
  readonly head: RequestHead;
  readonly headBytes: number;
  readonly body: BodyScanner;
  readonly pieces: Buffer[];
  bytes: number;
}

export class HttpIntake {
  readonly #options: HttpIntakeOptions;
  readonly #heads = new HeadScanner();
  #undecided: Undecided | undefined;
  #timer: Timer | undefined;
  /** What could not be understood. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(options: HttpIntakeOptions) {
    this.#options = options;
  }

  /** Bytes that were read and have not been given on. */
  get held(): Buffer {
    return Buffer.concat([...(this.#undecided?.pieces ?? []), this.#heads.held, this.#rest]);
  }
  get isEmpty(): boolean {
    return this.#undecided === undefined && this.#heads.heldBytes === 0;
  }

  /** Reads on at `at`; returns how far. */
  take(chunk: Buffer, at: number): number {
    const next = this.#undecided === undefined ? this.#takeHead(chunk, at) : this.#takeBody(this.#undecided, chunk, at);
    if (!(next instanceof Unclear)) return next;
    this.#rest = chunk.subarray(at);
    this.#options.onUnclear(next.reason);
    return chunk.length;
  }

  /** The caller has ended: a request whose head is known is decided. */
  finish(): void {
    if (this.#undecided === undefined) this.#options.onUnclear("the caller ended in a head");
    else this.#decide(this.#undecided, true);
  }

  stop(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #takeHead(chunk: Buffer, at: number): number | Unclear {
    const heads = this.#heads;
    const { heldBytes } = heads;
    const bytes = heads.scan(chunk, at);
    if (bytes === undefined) {
      this.#timer ??= this.#options.clock
        .after(headMs, () => this.#options.onUnclear("a head is not finished"))
        .unref();
      return chunk.length;
    }
    return bytes instanceof Unclear ? bytes : this.#begin(bytes, chunk, at + bytes.length - heldBytes);
  }

  /** `bytes` are the head; the body follows in the chunk at `at`. */
  #begin(bytes: Buffer, chunk: Buffer, at: number): number | Unclear {
    const head = parseRequestHead(bytes);
    if (head instanceof Unclear) return head;
    const length = requestBodyLength(head);
    if (length instanceof Unclear) return length;
    const body = new BodyScanner(length);
    const next = body.take(chunk, at);
    if (body.unclear !== undefined) return body.unclear;
    const whole = this.#heads.heldBytes === 0;
    const first = whole ? chunk.subarray(at - bytes.length, next) : Buffer.concat([bytes, chunk.subarray(at, next)]);
    this.#heads.clear();
    this.stop();
    this.#decide({ head, headBytes: bytes.length, body, pieces: [first], bytes: first.length }, false);
    return next;
  }

  #takeBody(undecided: Undecided, chunk: Buffer, at: number): number | Unclear {
    const { body, pieces } = undecided;
    const next = body.take(chunk, at);
    if (body.unclear !== undefined) return body.unclear;
    pieces.push(chunk.subarray(at, next));
    undecided.bytes += next - at;
    if (body.done || isTooLong(undecided)) this.#decide(undecided, true);
    return next;
  }

  #decide(request: Undecided, isLast: boolean): void {
    const { head, headBytes, body, pieces } = request;
    const { routes, onRequest } = this.#options;
    const final = isLast || body.done || isTooLong(request);
    // Most requests are decided without; the body is only put together when somebody may look at it.
    const asked = askedOf(head);
    const quick = isLast ? "needs-body" : routes.decide(asked, { bytes: undefined, final: false });
    const bytes =
      quick === "needs-body" && body.done ? contentOf(head, Buffer.concat(pieces).subarray(headBytes)) : undefined;
    const taken = quick === "needs-body" && final ? routes.decide(asked, { bytes, final }) : quick;
    if (taken === "needs-body") {
      this.#wait(request);
      return;
    }
    this.stop();
    this.#undecided = undefined;
    const [first = Buffer.alloc(0)] = pieces;
    onRequest({ head, headBytes, asked, body, bytes: pieces.length === 1 ? first : Buffer.concat(pieces), taken });
  }

  #wait(request: Undecided): void {
    this.#undecided = request;
    this.#timer = this.#options.clock.after(bodyMs, () => this.#decide(request, true)).unref();
    const { head, headBytes, bytes } = request;
    if (bytes === headBytes && head.minor === 1 && listHolds(head, "expect", "100-continue")) {
      this.#options.askForBody();
    }
  }
}

/** More than a filter looks at, as far as is known. */
function isTooLong({ headBytes, body, bytes }: Undecided): boolean {
  return bytes - headBytes + body.leftBytes > filterLimits.bodyBytes;
}

/** What the bytes of a whole body say. */
export function contentOf(head: RequestHead, body: Buffer): Buffer {
  return requestBodyLength(head) === "chunked" ? decodeChunked(body) : body;
}
