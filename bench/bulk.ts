// Bulk through the device, beside `kubectl port-forward` and a raw port-forward of our own client, in turns, so that what
// else the machine does hits all; and the same and round trips on the way past the API server.
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import * as cluster from "#testbed/cluster.ts";
import { benchRoundTrips } from "./traffic.ts";
import { baseName, beside, forwarded, ours, targetPod } from "./beside.ts";
import { median } from "./results.ts";
import type { Add, Report } from "./results.ts";
import { cpuSeconds, laptopProcess, namespace, onLaptop, podProcess, script } from "./stage.ts";

const rounds = 3;
const bulkSeconds = 3;
const streamCounts = [1, 8];
const limitMs = 30_000;
/** The manager's port behind the service that an administrator makes. */
const directPort = 8444;

export async function benchBulk(report: Report): Promise<void> {
  await beside("bulk", report, (add) => measureBulk(add, ""));
}

/** The test bed's node lets nobody in but to the API server; the way to the NodePort is opened while this runs. */
export async function benchDirect(report: Report): Promise<void> {
  await beside("direct", report, async (add) => {
    const guard = ["rule", "inet", "guard", "forwarding"];
    const allowed = ["iifname", "wan0", "tcp", "dport", String(directPort), "accept"];
    const echoed = await inNode("--echo", "--handle", "insert", ...guard, ...allowed);
    try {
      await onLaptop(`telepresence quit; telepresence connect -n ${namespace} --direct nodeport --transport direct`);
      await untilDirect();
      await measureBulk(add, ", direct");
      await benchRoundTrips(add, ", direct");
    } finally {
      const handle = /handle (\d+)/.exec(echoed)?.[1] ?? "";
      await inNode("delete", ...guard, "handle", handle);
    }
  });
}

async function inNode(...args: readonly string[]): Promise<string> {
  return await cluster.runIn(cluster.namespaces.node, "nft", args);
}

async function untilDirect(): Promise<void> {
  const endMs = systemClock.now() + limitMs;
  while (!/direct/.test(await onLaptop("telepresence status | grep -i transport", true))) {
    if (systemClock.now() > endMs) throw new AppError("timeout", "the link did not go past the API server");
    await systemClock.sleep(500, new AbortController().signal);
  }
}

interface Bulk {
  readonly gbitPerSecond: number;
  /** Of the process that carries them on the laptop, and of the manager. */
  readonly secondsPerGb: number;
  readonly managerSecondsPerGb: number;
}

async function measureBulk(add: Add, how: string): Promise<void> {
  const daemon = laptopProcess("daemon/start.js");
  const kubectl = laptopProcess("kubectl port-forward");
  const manager = await podProcess("telepresence", "app.kubernetes.io/name=traffic-manager", "traffic-manager");
  const pod = await targetPod("metadata.name");
  for (const direction of ["up", "down"]) {
    for (const streams of streamCounts) {
      const through = async (url: string, pid: number): Promise<Bulk> => {
        const [before, managerBefore] = [cpuSeconds(pid), cpuSeconds(manager)];
        const { gbitPerSecond } = await script<Bulk>(
          "http-client.mjs",
          `${url}${direction}`,
          direction,
          bulkSeconds,
          streams,
        );
        const gigabytes = (gbitPerSecond / 8) * bulkSeconds;
        return {
          gbitPerSecond,
          secondsPerGb: (cpuSeconds(pid) - before) / gigabytes,
          managerSecondsPerGb: (cpuSeconds(manager) - managerBefore) / gigabytes,
        };
      };
      const raw = async (): Promise<number> =>
        (await script<Bulk>("raw-forward.ts", namespace, pod, direction, bulkSeconds, streams)).gbitPerSecond;
      const seen = { ours: [] as Bulk[], kubectl: [] as Bulk[], raw: [] as number[] };
      for (let round = 0; round < rounds; round++) {
        seen.ours.push(await through(ours, daemon));
        seen.kubectl.push(await through(forwarded, kubectl));
        seen.raw.push(await raw());
      }
      const of = (runs: readonly Bulk[], key: keyof Bulk): number => median(runs.map((run) => run[key]));
      const what = `bulk TCP ${direction}, ${streams} streams${how}`;
      const gbit = of(seen.ours, "gbitPerSecond");
      add({ what, ours: gbit, base: of(seen.kubectl, "gbitPerSecond"), baseName, unit: "Gbit/s" });
      add({ what, ours: gbit, base: median(seen.raw), baseName: "raw port-forward from Node", unit: "Gbit/s" });
      const cost = { base: of(seen.kubectl, "secondsPerGb"), baseName, unit: "s/GB" };
      add({ what: `${what}, processor time of the daemon`, ours: of(seen.ours, "secondsPerGb"), ...cost });
      add({ what: `${what}, of the traffic-manager`, ours: of(seen.ours, "managerSecondsPerGb"), unit: "s/GB" });
    }
  }
}
