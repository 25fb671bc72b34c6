// Runs on the laptop: `datagram-client.mjs HOST PORT SECONDS` prints the median round trip (ms) of 64-byte datagrams, one
// at a time, and how many of 10,000 a second for so long do not come back.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const [, , host, port, seconds] = process.argv;
const socket = createSocket({ type: "udp4", recvBufferSize: 4 * 1024 * 1024 });
socket.connect(Number(port), host);
await once(socket, "connect");
const times = [];
for (let round = 0; round < 600; round++) {
  const startMs = performance.now();
  socket.send(Buffer.alloc(64));
  await once(socket, "message", { signal: AbortSignal.timeout(5000) });
  if (round >= 100) times.push(performance.now() - startMs);
}
times.sort((left, right) => left - right);
let [sent, back] = [0, 0];
socket.on("message", () => back++);
const startMs = performance.now();
const total = Number(seconds) * 10_000;
while (sent < total) {
  const due = Math.min(total, Math.floor((performance.now() - startMs) * 10));
  for (; sent < due; sent++) socket.send(Buffer.alloc(64));
  await sleep(1);
}
for (let waited = 0; back < sent && waited < 30; waited++) await sleep(100);
socket.close();
process.stdout.write(JSON.stringify({ p50Ms: times[Math.floor(times.length / 2)], sent, lost: sent - back }));
