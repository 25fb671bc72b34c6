// What a real PostgreSQL does not do on demand; test/services/sole-server.test.ts has the rest.
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { claimPostgres } from "./sole-server.ts";

/** A message of PostgreSQL's protocol: type, length, content. */
function message(type: string, content: string): Buffer {
  const made = Buffer.from(`${type}----${content}`, "latin1");
  made.writeUInt32BE(content.length + 4, 1);
  return made;
}

// A server that looked for its lock twice a second left a connection behind each time, until PostgreSQL had no more.
test("a connection that PostgreSQL lets in and then refuses is not left behind", async () => {
  const [letIn, ready] = [message("R", "\0\0\0\0"), message("Z", "I")];
  const refused = message("E", "SERROR\0C57P03\0Mstill starting\0\0");
  await using server = createServer().listen(0, "127.0.0.1");
  server.on("connection", (socket: Socket) => {
    socket.once("data", () => {
      socket.write(Buffer.concat([letIn, ready]));
      socket.on("data", ([type]) => type !== "X".charCodeAt(0) && socket.write(Buffer.concat([refused, ready])));
    });
  });
  const arrived = once(server, "connection") as Promise<[Socket]>;
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const clock = new FakeClock();
  const onLost = (): void => expect.unreachable();
  const claim = claimPostgres(`postgres://cloud@127.0.0.1:${port}/cloud`, { clock, log: silentLogger, onLost });
  await expect(claim).rejects.toThrow("the database does not answer: still starting");
  const [socket] = await arrived;
  if (!socket.closed) await once(socket, "close");
  expect(clock.pending).toBe(0);
});

const letIn = Buffer.concat([message("R", "\0\0\0\0"), message("Z", "I")]);
const column = "\0\u0001won\0" + "\0".repeat(6) + "\0\0\0\u0010\0\u0001\u00ff\u00ff\u00ff\u00ff\0\0";
const rows = [message("T", column), message("D", "\0\u0001\0\0\0\u0001t"), message("C", "SELECT 1\0")];
const won = Buffer.concat([...rows, message("Z", "T")]);
const done = Buffer.concat([message("C", "BEGIN\0"), message("Z", "T")]);

/** Does what it is asked, and answers the question for the lock with `answer`. */
function serve(socket: Socket, answer: Buffer): void {
  socket.write(letIn);
  socket.on("data", (bytes: Buffer) => {
    const [type, text] = [String.fromCharCode(bytes[0] ?? 0), bytes.toString("latin1")];
    if (type === "P") socket.write(Buffer.concat([message("1", ""), message("2", ""), message("n", ""), done]));
    else if (type === "Q") socket.write(text.includes("pg_try_advisory") ? answer : done);
  });
}

// A PostgreSQL that was told to end gave the lock and ended: the server took the database for its own, for good.
test("a lock whose connection ends in the same breath is not held", async () => {
  await using server = createServer().listen(0, "127.0.0.1");
  const ending = message("E", "SFATAL\0C57P01\0Mterminating connection\0\0");
  server.on("connection", (socket: Socket) => {
    socket.once("data", () => serve(socket, Buffer.concat([won, ending])));
  });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const clock = new FakeClock();
  const onLost = (): void => expect.unreachable();
  const claim = claimPostgres(`postgres://cloud@127.0.0.1:${port}/cloud`, { clock, log: silentLogger, onLost });
  await expect(claim).rejects.toThrow("the connection was lost that would hold the lock");
  expect(clock.pending).toBe(0);
});

// The connection stood afterwards, and the lock with it, for as long as the process lived.
test("a claim that is given back while it connects again leaves no connection behind", async () => {
  await using server = createServer().listen(0, "127.0.0.1");
  const begun: Socket[] = [];
  const again = Promise.withResolvers<Socket>();
  server.on("connection", (socket: Socket) => {
    begun.push(socket);
    socket.once("data", () => (begun.length === 1 ? serve(socket, won) : again.resolve(socket)));
  });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const clock = new FakeClock();
  const onLost = (): void => expect.unreachable();
  const url = `postgres://cloud@127.0.0.1:${port}/cloud`;
  const claim = await claimPostgres(url, { clock, log: silentLogger, onLost });
  begun[0]?.destroy();
  const socket = await again.promise;
  await claim[Symbol.asyncDispose]();
  serve(socket, won);
  if (!socket.closed) await once(socket, "close");
  expect([claim.holds, clock.pending]).toEqual([false, 0]);
});
