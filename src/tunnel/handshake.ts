// The exchange of HELLOs (PROTOCOL §3). The opener speaks first; the accepter stays silent until it has seen our
// magic, so a stray HTTP request or port scan is closed without an answer.
// Invariant: `complete` is called in the tick of the last HELLO byte, so no byte or event of the transport is missed.
import type { Duplex } from "node:stream";
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, errorCodes, toAppError } from "#base/error.ts";
import type { ErrorCode } from "#base/error.ts";
import { HelloDecoder, encodeHello, negotiate } from "#wire/hello-codec.ts";
import type { Agreement } from "#wire/hello-codec.ts";
import type { Hello } from "#wire/hello.ts";
import { helloTimeoutMs } from "#wire/limits.ts";

/** chosen: how long the last words of a link that ends in error may take to leave. */
const farewellMs = 1000;

export interface HandshakeOptions {
  readonly transport: Duplex;
  readonly hello: Hello;
  readonly role: "opener" | "accepter";
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Refuses an end of any other role. */
  readonly expectRole?: Hello["role"];
  /** The accepter's HELLO where it depends on the opener's; what it throws is a refusal. */
  readonly answer?: (theirs: Hello) => Hello;
}

export interface Handshake {
  readonly peer: Hello;
  /** What this end has said. */
  readonly mine: Hello;
  readonly agreement: Agreement;
  /** Bytes that came after the HELLO. */
  readonly rest: Uint8Array;
}

/** Rejects and destroys the transport when the ends do not fit, on time-out, and when the signal aborts. */
export function exchangeHello<T>(options: HandshakeOptions, complete: (handshake: Handshake) => T): Promise<T> {
  const { transport, hello, role, clock, signal } = options;
  const limit = deadline(clock, helloTimeoutMs, "the greeting of the far end", signal);
  const decoder = new HelloDecoder();
  return new Promise<T>((resolve, reject) => {
    const leave = (): void => {
      limit[Symbol.dispose]();
      limit.signal.removeEventListener("abort", onAbort);
      transport.off("data", onData).off("end", onEnd).off("close", onEnd).off("error", onError);
    };
    const fail = (error: AppError, farewell?: Uint8Array): void => {
      leave();
      transport.on("error", () => undefined); // an error of a transport we give up has no reader
      if (farewell === undefined) transport.destroy();
      else endTransport(transport, clock, farewell);
      reject(error);
    };
    const onAbort = (): void => fail(toAppError(limit.signal.reason));
    const onEnd = (): void => fail(new AppError("link_lost", "the far end closed the connection before its greeting"));
    const onError = (error: Error): void =>
      fail(new AppError("link_lost", `the connection failed before the greeting: ${error.message}`, { cause: error }));
    const onData = (chunk: Uint8Array): void => {
      try {
        const decoded = decoder.push(chunk);
        if (decoded === undefined) return;
        const outcome = judge(options, decoded.hello);
        if (outcome instanceof AppError) {
          fail(outcome, role === "accepter" ? refusal(hello, outcome) : undefined);
          return;
        }
        if (role === "accepter") transport.write(encodeHello(outcome.mine));
        leave();
        resolve(
          complete({ peer: decoded.hello, mine: outcome.mine, agreement: outcome.agreement, rest: decoded.rest }),
        );
      } catch (error) {
        fail(toAppError(error));
      }
    };
    if (limit.signal.aborted) {
      onAbort();
      return;
    }
    limit.signal.addEventListener("abort", onAbort, { once: true });
    if (transport.destroyed || transport.readableEnded) {
      onEnd();
      return;
    }
    transport.on("data", onData).on("end", onEnd).on("close", onEnd).on("error", onError);
    if (role === "opener") transport.write(encodeHello(hello));
  });
}

/** Sends the last words, if the transport takes them in time, and destroys it. */
export function endTransport(transport: Duplex, clock: Clock, lastWords?: Uint8Array): void {
  const timer = clock.after(farewellMs, () => transport.destroy()).unref();
  transport.once("close", () => timer[Symbol.dispose]());
  transport.end(lastWords, () => transport.destroy());
}

function judge(options: HandshakeOptions, theirs: Hello): { agreement: Agreement; mine: Hello } | AppError {
  try {
    const agreement = negotiate(options.hello, theirs);
    if (theirs.refusal !== undefined) return refusedBy(theirs.refusal);
    if (options.expectRole !== undefined && theirs.role !== options.expectRole) {
      return new AppError("denied", `the far end is a ${theirs.role}, expected a ${options.expectRole}`);
    }
    return { agreement, mine: options.answer?.(theirs) ?? options.hello };
  } catch (error) {
    return toAppError(error);
  }
}

function refusedBy(refusal: NonNullable<Hello["refusal"]>): AppError {
  const code = Object.hasOwn(errorCodes, refusal.code) ? (refusal.code as ErrorCode) : "denied";
  return new AppError(code, refusal.message);
}

function refusal(hello: Hello, error: AppError): Uint8Array {
  const message = error.hint === undefined ? error.message : `${error.message}; ${error.hint}`;
  return encodeHello({ ...hello, refusal: { code: error.code, message: message.slice(0, 2000) } });
}
