// One TCP connection, given up when the signal aborts; for whoever joins it with a stream (pipe.ts).
import { connect } from "node:net";
import type { Socket } from "node:net";
import type { Endpoint } from "#wire/open.ts";

/** chosen: finds far ends that vanished without a word; the kernel's default is two hours. */
export const keepAliveMs = 60_000;

/**
 * A connected socket that allows half-close and that nobody reads yet. Rejects with the socket's own error, whose `code`
 * is the errno, or with the signal's reason.
 */
export function dial(target: Endpoint, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  if (signal.aborted) {
    reject(signal.reason as Error);
    return promise;
  }
  const socket = connect({
    host: target.address,
    port: target.port,
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
  });
  const onAbort = (): void => {
    socket.destroy();
    reject(signal.reason as Error);
  };
  const onError = (error: Error): void => {
    signal.removeEventListener("abort", onAbort);
    socket.destroy();
    reject(error);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  socket.once("error", onError);
  socket.once("connect", () => {
    signal.removeEventListener("abort", onAbort);
    socket.removeListener("error", onError);
    resolve(socket);
  });
  return promise;
}
