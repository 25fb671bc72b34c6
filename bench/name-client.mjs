// Runs on the laptop: `name-client.mjs NAMES TEMPLATE` asks the system's nameserver for names with 0, 1, … in place of `#`,
// and prints the median time (ms) of a name that was not asked for before, of one that was, and how many of 1,000
// look-ups at once fail.
import { createSocket } from "node:dgram";
import { getServers, Resolver } from "node:dns/promises";
import { once } from "node:events";

const [, , count, template = ""] = process.argv;
const resolver = new Resolver({ timeout: 5000, tries: 1 });
const nameOf = (index) => template.replace("#", String(index));
const names = Array.from({ length: Number(count) }, (_, index) => nameOf(index));
const median = (values) => values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)];
const timed = async (name) => {
  const startMs = performance.now();
  await resolver.resolve4(name);
  return performance.now() - startMs;
};

/** Each asked once, from one of 50 sockets: a library would ask again, and take a slow answer for none. */
async function lostOf(asked) {
  const sockets = await Promise.all(
    Array.from({ length: 50 }, async () => {
      const socket = createSocket("udp4");
      socket.bind(0);
      await once(socket, "listening");
      return socket;
    }),
  );
  const waiting = new Set(asked.keys());
  const done = Promise.withResolvers();
  for (const socket of sockets) {
    socket.on("message", (message) => {
      const isAnswer = (message[3] & 0x0f) === 0 && message.readUInt16BE(6) > 0;
      if (isAnswer) waiting.delete(message.readUInt16BE(0));
      if (waiting.size === 0) done.resolve();
    });
  }
  const [server] = getServers();
  for (const [id, name] of asked.entries()) sockets[id % sockets.length].send(query(id, name), 53, server);
  await Promise.race([done.promise, new Promise((resolve) => setTimeout(resolve, 5000).unref())]);
  for (const socket of sockets) socket.close();
  return waiting.size;
}

function query(id, name) {
  const labels = name.split(".").map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label)]));
  const message = Buffer.concat([Buffer.alloc(12), ...labels, Buffer.of(0, 0, 1, 0, 1)]);
  message.writeUInt16BE(id, 0);
  message[2] = 1; // recursion desired
  message[5] = 1;
  return message;
}

await timed(nameOf(count)); // warm
const [first, cached] = [[], []];
for (const name of names) first.push(await timed(name));
for (let round = 0; round < 1000; round++) cached.push(await timed(names[0]));
const lost = await lostOf(Array.from({ length: 1000 }, (_, index) => names[index % names.length]));
process.stdout.write(JSON.stringify({ firstMs: median(first), cachedMs: median(cached), lost }));
