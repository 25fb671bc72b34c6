// Runs on the laptop: `connections-client.mjs HOST PORT COUNT` opens so many connections, has an HTTP request answered on
// each, and again when all are open; prints how many were answered both times, and waits for a line to end them.
import { once } from "node:events";
import { connect } from "node:net";

const [, , host, port, count] = process.argv;
const sockets = [];
let left = Number(count);
const request = "GET / HTTP/1.1\r\nHost: target\r\n\r\n";
/** Rejects when the connection ends, or nothing comes for 30 s. */
const event = async (socket, name) => {
  const timer = setTimeout(() => socket.destroy(new Error("nothing for 30 s")), 30_000);
  const ended = new AbortController();
  const onClose = () => ended.abort();
  socket.once("close", onClose);
  try {
    return await once(socket, name, { signal: ended.signal });
  } finally {
    clearTimeout(timer);
    socket.off("close", onClose);
  }
};
const ask = async (socket) => {
  if (socket.destroyed) throw new Error("ended");
  socket.write(request);
  const [answer] = await event(socket, "data");
  if (!String(answer).startsWith("HTTP/1.1 200")) throw new Error("no answer");
};
const opening = async () => {
  while (left-- > 0) {
    const socket = connect({ host, port: Number(port), noDelay: true });
    socket.on("error", () => undefined);
    try {
      await event(socket, "connect");
      await ask(socket);
      sockets.push(socket);
    } catch {
      socket.destroy();
    }
  }
};
await Promise.all(Array.from({ length: 100 }, opening));
let answered = 0;
const asking = async (share) => {
  for (let index = share; index < sockets.length; index += 100) {
    await ask(sockets[index]).then(
      () => answered++,
      () => undefined,
    );
  }
};
await Promise.all(Array.from({ length: 100 }, (_, share) => asking(share)));
process.stdout.write(`${JSON.stringify({ opened: sockets.length, answered })}\n`);
await once(process.stdin, "data");
process.exit();
