// One `up` or `down` at a time on a machine. The lock is an abstract Unix socket: the kernel takes it back the moment
// its holder ends, however it ends, and whoever waits is told by the closing connection.
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface Lock extends Disposable {
  release(): void;
}

/** Waits as long as another holds the lock; `onWait` is told what the holder is doing. */
export async function takeLock(name: string, doing: string, onWait: (holder: string) => void): Promise<Lock> {
  for (let told = false; ;) {
    const server = await tryListen(`\0${name}`, `${doing} (process ${process.pid})`);
    if (server !== undefined) {
      const release = (): void => void server.close();
      return { release, [Symbol.dispose]: release };
    }
    await waitForHolder(`\0${name}`, (holder) => {
      if (!told) onWait(holder);
      told = true;
    });
  }
}

async function tryListen(path: string, text: string): Promise<Server | undefined> {
  // Waiting connections do not keep a release from being one: they are cut with the server.
  const waiting = new Set<{ destroy(): void }>();
  const server = createServer((socket) => {
    waiting.add(socket);
    socket.on("close", () => waiting.delete(socket));
    socket.on("error", () => undefined);
    socket.unref();
    socket.write(text);
  });
  const close = server.close.bind(server);
  server.close = (callback) => {
    close(callback);
    for (const socket of waiting) socket.destroy();
    return server;
  };
  server.unref();
  try {
    server.listen(path);
    await once(server, "listening");
    return server;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") return undefined;
    throw error;
  }
}

async function waitForHolder(path: string, told: (holder: string) => void): Promise<void> {
  const socket = connect(path);
  socket.on("data", (chunk: Buffer) => told(chunk.toString()));
  socket.on("error", () => undefined); // refused: the holder has just gone
  await once(socket, "close").catch(() => undefined);
  await sleep(20);
}
