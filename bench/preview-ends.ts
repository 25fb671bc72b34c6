// All that a preview's request passes, in a process of its own: cloud server, manager, the laptop between them, ingress.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { PreviewLab } from "#test/flow/cloud/preview-lab.ts";

const body = Buffer.alloc(1024, "x");
const ingress = createServer((request, response) => {
  request.resume();
  request.once("end", () => {
    response.writeHead(200, { "content-type": "application/octet-stream", "content-length": body.length }).end(body);
  });
});
ingress.listen(0, "127.0.0.1");
await once(ingress, "listening");
const { port } = ingress.address() as AddressInfo;

const lab = await PreviewLab.open({ tls: true });
const ann = await lab.person("ann");
const laptop = await lab.laptop();
await lab.join(laptop, ann);
const preview = await lab.preview(laptop, ann, { port });
const cookie = await lab.enter(preview, await lab.session(ann));
process.on("disconnect", () => process.exit(0));
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.({ usedMs: (user + system) / 1000, rss: process.memoryUsage().rss });
});
process.send?.({ direct: port, preview: lab.cloud.port, host: `${preview.host}:${lab.cloud.port}`, cookie });
