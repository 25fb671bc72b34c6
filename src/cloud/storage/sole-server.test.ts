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
