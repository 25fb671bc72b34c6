// `npm run bench`: prints figures, checks none. Part names as arguments choose; without any, all run.
import { benchAgent } from "./agent.ts";
import { benchAttach } from "./attach.ts";
import { benchManager } from "./manager.ts";
import { benchProduct } from "./product.ts";
import { benchTunnel } from "./tunnel.ts";
import type { Report } from "./results.ts";

const parts: Readonly<Record<string, (report: Report) => Promise<void>>> = {
  agent: benchAgent,
  attach: benchAttach,
  manager: benchManager,
  tunnel: benchTunnel,
  product: benchProduct,
};

const report: Report = (name, figure) => void process.stdout.write(`${name.padEnd(40)} ${figure}\n`);
const wanted = process.argv.slice(2);
for (const [name, run] of Object.entries(parts)) {
  if (wanted.length === 0 || wanted.includes(name)) await run(report);
}
