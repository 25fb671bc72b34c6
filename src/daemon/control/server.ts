// The daemon's door: a Unix socket 0600 on which the CLI speaks JSON-RPC (PROTOCOL §8.4). A caller whose user is not
// the daemon's own (or root) is turned away before a byte is read. What a connection owns ends with it.
import { chmod, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { peerCredentials } from "#kernel/peer-cred.ts";
import { openRpc, type Handlers } from "#tunnel/rpc.ts";
import type { OwnedCommand } from "#wire/control-api.ts";
import { controlApi, controlCallerNotifications, controlNotifications } from "#wire/control-api.ts";

/** One command of the CLI. */
export interface Caller {
  /** Shows one line of progress. */
  readonly progress: (text: string) => void;
  /** Aborts when the CLI is gone. */
  readonly gone: AbortSignal;
}

/** What a command's connection owns, and so ends with it. */
export interface OwningCaller extends Caller {
  /** Its child, while it runs. */
  readonly command: OwnedCommand | undefined;
  readonly interceptEnded: (name: string, reason: string | undefined) => void;
}

export interface ControlServerOptions {
  readonly path: string;
  readonly handlersFor: (caller: OwningCaller) => Handlers<typeof controlApi>;
  /** The CLI could not start the helper. */
  readonly onHelperFailed: (message: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** chosen: for the last answers to be read. */
const graceMs = 200;
/** chosen: commands at once; a script that leaks connections gets an error, not the daemon's memory. */
const maxCallers = 200;

/** Listens; dispose to stop. The caller holds the lock that makes a stale socket safe to remove. */
export async function startControlServer(options: ControlServerOptions): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  let ending = false;
  const server = createServer({ pauseOnConnect: false }, (socket) => {
    socket.on("error", () => undefined); // 'close' follows
    const refusal = refuse(socket, open.size);
    if (refusal !== undefined) {
      options.log.warn("control connection refused", { reason: refusal });
      socket.destroy();
      return;
    }
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    serve(socket, options, () => ending);
  });
  await rm(options.path, { force: true });
  await listen(server, options.path);
  await chmod(options.path, 0o600);
  return {
    [Symbol.asyncDispose]: async () => {
      ending = true;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // Whoever has just got an answer goes by itself; who still holds a connection learns that the daemon ends.
      using _grace = options.clock.after(graceMs, () => {
        for (const socket of open) socket.destroySoon();
      });
      await closed;
    },
  };
}

function refuse(socket: Socket, openCount: number): string | undefined {
  if (openCount >= maxCallers) return `more than ${maxCallers} commands at once`;
  const { uid } = peerCredentials(socket);
  return uid === process.getuid?.() || uid === 0 ? undefined : `user ${uid} is not this daemon's`;
}

function serve(socket: Socket, options: ControlServerOptions, ending: () => boolean): void {
  const controller = new AbortController();
  socket.once("close", () => {
    if (ending()) command = undefined; // it was we who hung up: the CLI lives, and ends its command or not
    controller.abort(new AppError("cancelled", "the command ended"));
  });
  let command: OwnedCommand | undefined;
  const caller: OwningCaller = {
    gone: controller.signal,
    progress: (text) => rpc.notify("progress", { text }),
    interceptEnded: (name, reason) => rpc.notify("intercept.ended", { name, reason }),
    get command() {
      return command;
    },
  };
  const rpc = openRpc({
    stream: socket,
    serves: { api: controlApi, handlers: options.handlersFor(caller) },
    sends: controlNotifications,
    receives: controlCallerNotifications,
    log: options.log,
  });
  rpc.onNotification("helper.failed", ({ message }) => options.onHelperFailed(message));
  rpc.onNotification("command.started", (started) => (command = started));
  rpc.onNotification("command.ended", () => (command = undefined));
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const previous = process.umask(0o177); // the socket is never, not even for a moment, open to others
    server.once("error", reject);
    server.listen(path, () => {
      server.removeListener("error", reject);
      resolve();
    });
    process.umask(previous);
  });
}
