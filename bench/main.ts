// `npm run bench`: prints figures, checks none. Part names as arguments choose; without any, all run but flame graphs.
import { benchAgent } from "./agent.ts";
import { benchAttach } from "./attach.ts";
import { benchBulk, benchDirect } from "./bulk.ts";
import { benchCommands } from "./commands.ts";
import { benchFlame } from "./flame.ts";
import { benchLarge } from "./large.ts";
import { benchManager } from "./manager.ts";
import { benchPreviews } from "./previews.ts";
import { benchShaped } from "./shaped.ts";
import { benchTraffic } from "./traffic.ts";
import { benchTunnel } from "./tunnel.ts";
import type { Report } from "./results.ts";

const parts: Readonly<Record<string, (report: Report) => Promise<void>>> = {
  agent: benchAgent,
  attach: benchAttach,
  manager: benchManager,
  tunnel: benchTunnel,
  previews: benchPreviews,
  commands: benchCommands,
  bulk: benchBulk,
  direct: benchDirect,
  traffic: benchTraffic,
  shaped: benchShaped,
  large: benchLarge, // last: the cluster ends with it
};

/** By request only: it opens the inspector of what runs. */
const requested: typeof parts = { flame: benchFlame };

const report: Report = (name, figure) => void process.stdout.write(`${name.padEnd(40)} ${figure}\n`);
const wanted = process.argv.slice(2);
const known = { ...parts, ...requested };
const unknown = wanted.find((name) => !(name in known));
if (unknown !== undefined) {
  process.stderr.write(`There is no part "${unknown}"; there are: ${Object.keys(known).join(", ")}.\n`);
  process.exit(2);
}
const chosen = Object.entries(wanted.length === 0 ? parts : known);
for (const [name, run] of chosen) if (wanted.length === 0 || wanted.includes(name)) await run(report);
