// Who speaks first on a new connection, and what: a caller of HTTP is served request by request, any other protocol
// byte by byte. Nobody waits for the other: where an end was opened already, whichever side moves first decides, so a
// server that speaks first is heard at once. But servers of HTTP/2 greet callers who have said nothing yet: that decides
// nothing.
// Invariant: what was read from the caller is in `bytes`, whatever happens; what was seen of the other end is put back.
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { greetsHttp2, recogniseHttp } from "#http/recognise.ts";
import { parseClientHello } from "./tls/tls-hello.ts";
import type { ClientHello } from "./tls/tls-hello.ts";

/** chosen: bytes that may become a request line, with an end at hand that could make something else of them. */
const ambiguousMs = 1000;
/** chosen: a ClientHello is one write as a rule, and may be cut in two. */
const helloMs = 10_000;

export type Protocol = "http1" | "http2" | "tls" | "other";

export interface FirstMoveOptions {
  readonly mayBeHttp: boolean;
  /** Asked when bytes come. Where it is not to be read, TLS is something other. */
  readonly readsTls: () => boolean;
  readonly clock: Clock;
}

export class FirstMove {
  readonly #caller: Socket;
  readonly #options: FirstMoveOptions;
  #bytes: Buffer = Buffer.alloc(0);
  #hello: ClientHello | undefined;

  constructor(caller: Socket, options: FirstMoveOptions) {
    this.#caller = caller;
    this.#options = options;
  }

  /** What the caller has sent so far. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Of a caller that speaks TLS. */
  get hello(): ClientHello | undefined {
    return this.#hello;
  }

  /** Rejects when the other end fails before anybody spoke. `waitMs` bounds the caller's silence. */
  async protocol(other: Duplex | undefined, waitMs?: number): Promise<Protocol> {
    const { promise, resolve, reject } = Promise.withResolvers<Protocol>();
    const caller = this.#caller;
    const onBytes = (): void => {
      const kind = this.#look();
      if (kind === "part of a hello") timer ??= this.#after(helloMs, resolve);
      else if (kind !== "more") resolve(kind);
      else if (this.#bytes.length > 0 && other !== undefined) timer ??= this.#after(ambiguousMs, resolve);
    };
    const onOther = (): void => resolve("other");
    const onOtherBytes = (): void => {
      other?.off("readable", onOtherBytes); // putting back is heard like something new
      if (other !== undefined && this.#options.mayBeHttp && isGreeting(other))
        timer ??= this.#after(ambiguousMs, resolve);
      else resolve("other");
    };
    const onFailure = (error?: Error): void =>
      reject(error ?? new AppError("link_lost", "the connection ended before its first byte"));
    const onClose = (): void => onFailure();
    let timer = waitMs === undefined ? undefined : this.#after(waitMs, resolve);
    caller.on("readable", onBytes).on("end", onOther).on("close", onOther);
    other?.on("readable", onOtherBytes).on("end", onOther).on("error", onFailure).on("close", onClose);
    if (caller.destroyed || caller.readableEnded) resolve("other");
    else if (other?.destroyed === true) onFailure();
    else onBytes();
    try {
      return await promise;
    } finally {
      timer?.[Symbol.dispose]();
      caller.off("readable", onBytes).off("end", onOther).off("close", onOther);
      other?.off("readable", onOtherBytes).off("end", onOther).off("error", onFailure).off("close", onClose);
    }
  }

  #look(): Protocol | "more" | "part of a hello" {
    const chunk = this.#caller.read() as Buffer | null;
    if (chunk !== null) this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (this.#bytes.length > 0 && this.#options.readsTls()) {
      const hello = parseClientHello(this.#bytes);
      if (hello === "more") return "part of a hello";
      if (hello !== "other") {
        this.#hello = hello;
        return "tls";
      }
    }
    if (!this.#options.mayBeHttp && this.#bytes.length > 0) return "other";
    return recogniseHttp(this.#bytes);
  }

  #after(ms: number, resolve: (protocol: Protocol) => void): Disposable {
    return this.#options.clock.after(ms, () => resolve("other")).unref();
  }
}

/** Looks at what waits to be read, and leaves it there. */
function isGreeting(other: Duplex): boolean {
  const bytes = other.read() as Buffer | null;
  if (bytes === null) return false;
  other.unshift(bytes);
  return greetsHttp2(bytes);
}
