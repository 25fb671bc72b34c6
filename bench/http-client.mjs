// Runs on the laptop: `http-client.mjs URL latency COUNT` prints the round trips (ms) of COUNT requests on one kept
// connection: median, 99 %, and each hundredth of them; `… connections COUNT AT_ONCE` prints requests per second, each on a connection of its own; `… up|down SECONDS STREAMS` prints Gbit/s.
import http from "node:http";

const [, , url, mode, count, atOnce = "1"] = process.argv;
const one = (agent) =>
  new Promise((resolve, reject) => {
    const startMs = performance.now();
    const request = http.get(url, { agent, timeout: 10_000 }, (response) => {
      response.resume();
      response.on("end", () => resolve(performance.now() - startMs));
    });
    request.on("error", reject);
    request.on("timeout", () => request.destroy(new Error("no answer within 10 s")));
  });

if (mode === "latency") {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  for (let i = 0; i < 100; i++) await one(agent); // warm
  const times = [];
  for (let i = 0; i < Number(count); i++) times.push(await one(agent));
  agent.destroy();
  times.sort((left, right) => left - right);
  const at = (part) => times[Math.floor(times.length * part)];
  const quantilesMs = Array.from({ length: 100 }, (_, percent) => Number(at(percent / 100).toFixed(4)));
  process.stdout.write(JSON.stringify({ p50Ms: at(0.5), p99Ms: at(0.99), quantilesMs }));
} else if (mode === "up" || mode === "down") {
  const endMs = performance.now() + Number(count) * 1000;
  const block = Buffer.alloc(65_536);
  let bytes = 0;
  const up = () =>
    new Promise((resolve, reject) => {
      const request = http.request(url, { method: "POST", agent: false }, (response) => {
        response.resume();
        response.on("end", resolve); // the far end has read everything
      });
      request.on("error", reject);
      const send = () => {
        while (performance.now() < endMs) {
          bytes += block.length;
          if (!request.write(block)) return;
        }
        request.removeListener("drain", send);
        request.end();
      };
      request.on("drain", send);
      send();
    });
  const down = () =>
    new Promise((resolve, reject) => {
      const request = http.get(url, { agent: false }, (response) => {
        response.on("data", (chunk) => {
          bytes += chunk.length;
          if (performance.now() >= endMs) request.destroy();
        });
        response.on("close", resolve);
        response.on("error", () => undefined); // cut by ourselves
      });
      request.on("error", reject);
    });
  const startMs = performance.now();
  await Promise.all(Array.from({ length: Number(atOnce) }, mode === "up" ? up : down));
  const seconds = (performance.now() - startMs) / 1000;
  process.stdout.write(JSON.stringify({ gbitPerSecond: (bytes * 8) / seconds / 1e9 }));
} else {
  let left = Number(count);
  const startMs = performance.now();
  const worker = async () => {
    while (left-- > 0) await one(false);
  };
  await Promise.all(Array.from({ length: Number(atOnce) }, worker));
  process.stdout.write(JSON.stringify({ perSecond: Number(count) / ((performance.now() - startMs) / 1000) }));
}
