// `npm run bench flame`, by request only: where daemon and manager spend their time in bulk, each way, as flame graphs in
// bench/results/.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "#testbed/exec.ts";
import { checkoutRoot } from "#testbed/layout.ts";
import { formatFlameGraph, type Profile } from "./flame-graph.ts";
import type { Report } from "./results.ts";
import { laptopProcess, namespace, node, onLaptop, podProcess, script, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";

const [warmSeconds, seconds] = [3, 8];

export async function benchFlame(report: Report): Promise<void> {
  await withTarget(
    manifest,
    (line) => report(line, ""),
    async () => {
      await onLaptop(`telepresence connect -n ${namespace}`);
      const pids = {
        daemon: laptopProcess("daemon/start.js"),
        manager: await podProcess("telepresence", "app.kubernetes.io/name=traffic-manager", "traffic-manager"),
      };
      for (const way of ["up", "down"]) {
        await script("http-client.mjs", `http://target/${way}`, way, warmSeconds, 1);
        for (const [name, pid] of Object.entries(pids)) {
          const load = script<{ gbitPerSecond: number }>(
            "http-client.mjs",
            `http://target/${way}`,
            way,
            seconds + 1,
            1,
          );
          const profile = await profileOf(pid);
          const file = join(checkoutRoot, "bench", "results", `flame-${name}-${way}.svg`);
          const { gbitPerSecond } = await load;
          writeFileSync(file, formatFlameGraph(`${name}, bulk ${way}`, profile));
          report(`flame graph of the ${name}, ${way}, at ${gbitPerSecond.toFixed(2)} Gbit/s`, file);
        }
      }
    },
  );
}

/** As root, in the process's own network namespace, where its inspector listens. */
async function profileOf(pid: number): Promise<Profile> {
  const argv = [`--net=/proc/${pid}/ns/net`, node, join(checkoutRoot, "bench", "profile.mjs"), `${pid}`, `${seconds}`];
  const { stdout } = await run("nsenter", argv, { timeoutMs: 60_000 });
  return JSON.parse(stdout) as Profile;
}
