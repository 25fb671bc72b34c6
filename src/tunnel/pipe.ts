// Joins two connections: what one reads the other writes, in both directions, until both halves are closed.
// Half-close is kept (either side may end first), back-pressure is kept, and an error or reset of one resets the other
// with the same cause. Both must have been made with `allowHalfOpen`, as TunnelStreams are.
import { Socket } from "node:net";
import { finished } from "node:stream";
import type { Duplex } from "node:stream";
import { AppError } from "#base/error.ts";
import { SessionStream } from "./stream.ts";

export interface Joined {
  /** Resolves, never rejects, when both connections are gone: undefined when both halves were closed in order. */
  readonly closed: Promise<Error | undefined>;
  /** Resets both. */
  destroy(error?: Error): void;
}

/** Takes both over: neither needs an error listener of the caller's. */
export function joinDuplex(a: Duplex, b: Duplex): Joined {
  const { promise, resolve } = Promise.withResolvers<Error | undefined>();
  let failure: Error | undefined;
  let open = 2;
  const destroy = (error?: Error): void => {
    failure ??= error ?? new AppError("cancelled", "the connection was ended");
    reset(a, failure);
    reset(b, failure);
  };
  for (const end of [a, b]) {
    end.on("error", () => undefined); // `finished` hears it too; a late one must not end the process
    finished(end, (error) => {
      if (error !== null && error !== undefined) destroy(error);
    });
    end.once("close", () => {
      open -= 1;
      if (open === 0) resolve(failure);
    });
    if (end.closed) open -= 1;
  }
  if (open === 0) resolve(failure);
  pump(a, b);
  pump(b, a);
  return { closed: promise, destroy };
}

/** As `pipe` does; but a stream of a session, which would be full after each read, may be given some more. */
function pump(from: Duplex, to: Duplex): void {
  if (!(to instanceof SessionStream)) {
    from.pipe(to);
    return;
  }
  from.on("data", (chunk: Uint8Array) => {
    if (!to.write(chunk) && to.writableLength >= to.wantedBytes) from.pause();
  });
  to.on("drain", () => from.resume());
  if (from.readableEnded) to.end();
  else from.once("end", () => to.end());
  if (!to.writableNeedDrain) from.resume();
}

/** The far end of a TCP socket shall see a reset, not an orderly end that never was. */
function reset(end: Duplex, error: Error): void {
  if (end.destroyed) return;
  if (!(end instanceof Socket)) {
    end.destroy(error);
    return;
  }
  try {
    end.resetAndDestroy();
  } catch {
    end.destroy(error); // TLS and Unix sockets have no reset
  }
}
