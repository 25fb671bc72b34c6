// Who may come in: connections to this laptop's loopback by this user's own programs. Other users of the machine can
// reach the port too, and would borrow this user's way into the cluster; the kernel says whose a connection is.
import { once } from "node:events";
import { createServer as createTcpServer, type Server, type Socket } from "node:net";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { ask, askKernel, isWelcome } from "#daemon/own-programs.ts";
import { datagramOwner, tellsOwners } from "#kernel/sock-diag.ts";
import type { SocketEnd } from "#kernel/sock-diag-messages.ts";

/** chosen: programs' connections of one door at once; further ones are closed at once. */
export const maxConnections = 2048;

export const loopback = "127.0.0.1";

export interface DoorOptions {
  /** `SOCKS5`, for messages. */
  readonly name: string;
  /** 0 is any that is free. */
  readonly port: number;
  readonly log: Logger;
  /** The user at the other end; undefined when no program is there any more, which may have written before. */
  readonly ownerOf?: (socket: Socket) => number | undefined;
}

export interface Door extends AsyncDisposable {
  readonly port: number;
}

/** Hands over this user's connections, nobody else's. Closing it resets what is open. */
export async function openDoor(options: DoorOptions, onConnection: (socket: Socket) => void): Promise<Door> {
  const { name, log } = options;
  let { ownerOf } = options;
  const open = new Set<Socket>();
  const server = createTcpServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => undefined); // 'close' follows
    const owner = ownerOf === undefined ? process.getuid?.() : ask(() => ownerOf?.(socket), log);
    if (isWelcome(owner)) {
      onConnection(socket);
      return;
    }
    const reason = owner === undefined ? "its program has gone" : "another user";
    log.warn("a proxy connection was refused", { proxy: name, reason, uid: owner });
    socket.resetAndDestroy();
  });
  server.maxConnections = maxConnections;
  await listen(server, options);
  server.on("error", (error) => log.warn("a proxy's listener failed", { proxy: name, error: error.message }));
  const address = server.address();
  const port = address !== null && typeof address === "object" ? address.port : 0;
  if (tellsOwners({ address: loopback, port }, "tcp")) ownerOf ??= askKernel;
  return {
    port,
    [Symbol.asyncDispose]: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of open) socket.resetAndDestroy();
      await closed;
    },
  };
}

async function listen(server: Server, { name, port }: DoorOptions): Promise<void> {
  try {
    server.listen({ host: loopback, port, exclusive: true });
    await once(server, "listening");
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "another program listens there" : String(code);
    throw new AppError("port_in_use", `the ${name} proxy cannot listen on ${loopback}:${port}: ${why}`, {
      cause,
      hint: "name another port, or leave it out for one that is free",
    });
  }
}

/** Whether a datagram that came from `remote` is to be taken; everybody's where the kernel cannot tell. */
export function isOwnDatagram(local: SocketEnd, remote: SocketEnd, log: Logger): boolean {
  return isWelcome(ask(() => (tellsOwners(local, "udp") ? datagramOwner({ local, remote }) : process.getuid?.()), log));
}
