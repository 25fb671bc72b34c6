// Runs on the laptop: `raw-forward.ts NAMESPACE POD up|down SECONDS STREAMS` prints Gbit/s through port-forwards of our
// own client and nothing else: no device, no tunnel, no manager. One port-forward for each stream, HTTP by hand.
import { once } from "node:events";
import type { Duplex } from "node:stream";
import { openKube } from "#kube/client.ts";
import { loadTarget } from "#kube/config.ts";
import { openPortForward } from "#kube/streams/port-forward.ts";

const [, , namespace = "", pod = "", direction, seconds, streams] = process.argv;
const env = Object.fromEntries(Object.entries(process.env).map(([name, value]) => [name, value ?? ""]));
const kube = openKube(await loadTarget({ flags: {}, cwd: process.cwd(), env }));
const { signal } = new AbortController();
const endMs = performance.now() + Number(seconds) * 1000;
const block = Buffer.alloc(65_536);
const chunk = Buffer.concat([Buffer.from("10000\r\n"), block, Buffer.from("\r\n")]);
let bytes = 0;

async function up(stream: Duplex): Promise<void> {
  stream.write("POST /up HTTP/1.1\r\nHost: target\r\nTransfer-Encoding: chunked\r\n\r\n");
  while (performance.now() < endMs) {
    bytes += block.length;
    if (!stream.write(chunk)) await once(stream, "drain");
  }
  stream.write("0\r\n\r\n");
  await once(stream, "data"); // the far end has read everything
}

async function down(stream: Duplex): Promise<void> {
  stream.write("GET /down HTTP/1.1\r\nHost: target\r\n\r\n");
  stream.on("data", (piece: Buffer) => {
    bytes += piece.length;
    if (performance.now() >= endMs) stream.destroy();
  });
  await once(stream, "close");
}

const opened = await Promise.all(
  Array.from(
    { length: Number(streams) },
    async () => await openPortForward(kube, { namespace, pod, port: 8080, signal }),
  ),
);
const startMs = performance.now();
await Promise.all(opened.map(direction === "up" ? up : down));
const gbitPerSecond = (bytes * 8) / (performance.now() - startMs) / 1e6;
process.stdout.write(JSON.stringify({ gbitPerSecond }), () => process.exit(0));
