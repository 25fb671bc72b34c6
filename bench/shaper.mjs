// Runs on the laptop: `shaper.mjs PORT HOST:PORT DELAY_MS LOSS` stands for a long or a bad way: what comes to the port goes
// on to the other place, each way DELAY_MS later (so round trips are longer by twice that). LOSS is the share of packets of
// 1,448 bytes that are lost: what follows one waits for a round trip, as it would until TCP has sent it again. Senders see
// a full pipe and no loss, so their congestion control does not slow down: this tells what delay and stalls cost, no more.
import { connect, createServer } from "node:net";

const [, , port, target, delay, loss] = process.argv;
const [host, targetPort] = target.split(":");
const delayMs = Number(delay);
const lossShare = Number(loss);
const packetBytes = 1448;
/** What may be on its way in one direction: 1 Gbit/s for 130 ms. */
const pipeBytes = 16 * 1024 * 1024;

/** The same losses in each run: mulberry32. */
let state = 1;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}

function carry(from, to) {
  const queue = [];
  let bytes = 0;
  let lastMs = 0;
  let timer;
  const deliver = () => {
    timer = undefined;
    while (queue.length > 0 && queue[0].atMs <= performance.now()) {
      const { chunk } = queue.shift();
      if (chunk === undefined) to.end();
      else {
        bytes -= chunk.length;
        to.write(chunk);
      }
    }
    if (bytes < pipeBytes && to.writableLength < pipeBytes) from.resume();
    if (queue.length > 0) timer = setTimeout(deliver, Math.max(0, queue[0].atMs - performance.now()));
  };
  const add = (chunk) => {
    const packets = Math.ceil((chunk?.length ?? 0) / packetBytes);
    const isLost = lossShare > 0 && random() < 1 - (1 - lossShare) ** packets;
    lastMs = Math.max(lastMs, performance.now() + delayMs + (isLost ? 2 * delayMs + 1 : 0));
    queue.push({ atMs: lastMs, chunk });
    timer ??= setTimeout(deliver, lastMs - performance.now());
  };
  from.on("data", (chunk) => {
    bytes += chunk.length;
    if (bytes >= pipeBytes) from.pause();
    add(chunk);
  });
  from.on("end", () => add(undefined));
  to.on("drain", () => from.resume());
}

createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
  const far = connect({ host, port: Number(targetPort), allowHalfOpen: true, noDelay: true });
  for (const [one, other] of [
    [near, far],
    [far, near],
  ]) {
    one.on("error", () => other.destroy());
    one.on("close", () => other.destroy());
  }
  carry(near, far);
  carry(far, near);
}).listen(Number(port), "127.0.0.1", () => process.stdout.write("ready\n"));
