// What goes through the device but bulk: round trips, connections, names, datagrams. The base lines are measured in turns
// with ours, so that what else the machine does hits both.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as cluster from "#testbed/cluster.ts";
import { checkoutRoot } from "#testbed/layout.ts";
import { baseName, beside, forwarded, ours, targetPod } from "./beside.ts";
import { median } from "./results.ts";
import type { Add, Report } from "./results.ts";
import { anonymousMegabytes, laptopProcess, namespace, node, repeated, script } from "./stage.ts";
import { nameCount } from "./target.ts";

const rounds = 3;
const openConnections = 10_000;

export async function benchTraffic(report: Report): Promise<void> {
  await beside("traffic", report, async (add) => {
    const roundTripMs = await benchRoundTrips(add);
    await benchNewConnections(add);
    await benchNames(add);
    await benchDatagrams(add, roundTripMs);
    await benchOpenConnections(add);
  });
}

interface RoundTrips {
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Median round trip through the port-forward of kubectl. */
export async function benchRoundTrips(add: Add, how = ""): Promise<number> {
  const measure = async (url: string): Promise<RoundTrips> =>
    await script<RoundTrips>("http-client.mjs", url, "latency", 1000);
  const seen = { ours: [] as RoundTrips[], base: [] as RoundTrips[] };
  for (let round = 0; round < rounds; round++) {
    seen.ours.push(await measure(ours));
    seen.base.push(await measure(forwarded));
  }
  const pods = await inCluster<RoundTrips>(await targetUrl(), "latency", 1000);
  for (const part of ["p50", "p99"] as const) {
    const of = (runs: readonly RoundTrips[]): number => median(runs.map((run) => run[`${part}Ms`]));
    const what = `HTTP keep-alive round trip, ${part}${how}`;
    add({ what, ours: of(seen.ours), base: of(seen.base), baseName, unit: "ms" });
    add({ what, ours: of(seen.ours), base: pods[`${part}Ms`], baseName: "pod to pod", unit: "ms" });
  }
  return median(seen.base.map((run) => run.p50Ms));
}

async function benchNewConnections(add: Add): Promise<void> {
  const rate = async (url: string): Promise<number> =>
    (await script<{ perSecond: number }>("http-client.mjs", url, "connections", 1000, 50)).perSecond;
  const url = await targetUrl();
  const what = "new connections, 50 at once";
  const rateOfOurs = await repeated(() => rate(ours), rounds);
  add({ what, ours: rateOfOurs, base: await repeated(() => rate(forwarded), rounds), baseName, unit: "requests/s" });
  const base = await repeated(
    async () => (await inCluster<{ perSecond: number }>(url, "connections", 1000, 50)).perSecond,
    rounds,
  );
  add({ what, ours: rateOfOurs, base, baseName: "pod to pod", unit: "requests/s" });
}

async function benchNames(add: Add): Promise<void> {
  const measure = async (template: string): Promise<{ firstMs: number; cachedMs: number; lost: number }> =>
    await script("name-client.mjs", nameCount, template);
  const own = await measure(`n#.${namespace}.svc.cluster.local`);
  add({ what: "service of the connection's namespace, first look-up, p50", ours: own.firstMs, unit: "ms" });
  // Names that CoreDNS has for every address of a pod; the daemon knows nothing of them.
  const other = await measure("10-244-0-#.default.pod.cluster.local");
  add({ what: "name of the cluster, first look-up, p50", ours: other.firstMs, unit: "ms" });
  add({ what: "name of the cluster, cached, p50", ours: other.cachedMs, unit: "ms" });
  add({ what: "1,000 look-ups at once, lost", ours: own.lost + other.lost, unit: "of 2000" });
}

async function benchDatagrams(add: Add, roundTripMs: number): Promise<void> {
  const seen = await script<{ p50Ms: number; sent: number; lost: number }>("datagram-client.mjs", "target", 9000, 3);
  const base = { base: roundTripMs, baseName: "HTTP through kubectl port-forward" };
  add({ what: "UDP echo of 64 bytes, p50", ours: seen.p50Ms, ...base, unit: "ms" });
  add({ what: "UDP echo, 10,000 datagrams/s, lost", ours: seen.lost, unit: `of ${seen.sent}` });
}

async function benchOpenConnections(add: Add): Promise<void> {
  const daemon = laptopProcess("daemon/start.js");
  add({ what: "anonymous memory of the daemon after all this", ours: anonymousMegabytes(daemon), unit: "MB" });
  const client = join(checkoutRoot, "bench", "connections-client.mjs");
  const spec = cluster.laptop([node, client, "target", "80", String(openConnections)]);
  const child = spawn(spec.file, [...spec.args], { stdio: ["pipe", "pipe", "inherit"] });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  const { answered } = JSON.parse(line.toString()) as { answered: number };
  add({ what: "connections open at once, answered", ours: answered, unit: `of ${openConnections}` });
  add({ what: "anonymous memory of the daemon with these", ours: anonymousMegabytes(daemon), unit: "MB" });
  child.stdin.write("\n");
  await once(child, "exit");
}

async function targetUrl(): Promise<string> {
  return `http://${await targetPod("status.podIP")}:8080/`;
}

/** The client of HTTP in a pod. */
async function inCluster<T>(url: string, ...args: readonly (string | number)[]): Promise<T> {
  const source = readFileSync(join(checkoutRoot, "bench", "http-client.mjs"), "utf8");
  const call = ["node", "--input-type=module", "-e", source, "client", url, ...args.map(String)];
  const { stdout } = await cluster.kubectl(["exec", "-n", namespace, "deployment/caller", "--", ...call]);
  return JSON.parse(stdout) as T;
}
