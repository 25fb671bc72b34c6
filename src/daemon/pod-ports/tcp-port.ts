// TCP connections to a port of a pod's loopback. The port-forward has no half-close: that a program here has ended its
// sending cannot be told to the pod, so its connection stays while the pod answers, and ends when it falls silent. A
// reset of the pod's side is a reset here; one of ours is an end there.
import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { finished } from "node:stream";
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Endpoint } from "#wire/open.ts";

export interface TcpPortOptions {
  readonly dial: () => Promise<Duplex>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: connections of one port at once; each is one of the API server's. */
const maxConnections = 256;
/** chosen: how long a pod that was sent everything may think before its next byte. */
const answerMs = 30_000;

/** Rejects with the system's error where the port cannot be had. */
export async function listenTcp({ address: host, port }: Endpoint, options: TcpPortOptions): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => undefined); // 'close' follows
    void carry(socket, options);
  });
  server.maxConnections = maxConnections;
  server.listen({ port, host, exclusive: true });
  await once(server, "listening");
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of open) socket.resetAndDestroy();
      await closed;
    },
  };
}

/** Never rejects. */
async function carry(socket: Socket, { dial, clock, log }: TcpPortOptions): Promise<void> {
  let forward: Duplex;
  try {
    forward = await dial();
  } catch (error) {
    log.info("a port of the pod could not be reached", { port: socket.localPort, error: String(error) });
    socket.resetAndDestroy();
    return;
  }
  if (socket.destroyed) {
    forward.destroy();
    return;
  }
  join(socket, forward, clock);
}

function join(socket: Socket, forward: Duplex, clock: Clock): void {
  let answeredMs = clock.now();
  let silence: Disposable | undefined;
  const watchSilence = (ms: number): void => {
    silence = clock.after(ms, () => {
      const quietMs = clock.now() - answeredMs;
      if (quietMs >= answerMs) forward.destroy();
      else watchSilence(answerMs - quietMs);
    });
  };
  forward.on("data", () => (answeredMs = clock.now()));
  socket.once("end", () => {
    answeredMs = clock.now();
    watchSilence(answerMs);
  });
  finished(forward, (error) => {
    silence?.[Symbol.dispose]();
    // Ended in order: what the pod has sent still goes out.
    if (error === null || error === undefined) socket.destroySoon();
    else if (!socket.destroyed) socket.resetAndDestroy();
  });
  socket.once("close", () => forward.destroy());
  forward.pipe(socket);
  socket.pipe(forward, { end: false });
}
