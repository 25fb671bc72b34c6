// The product on long and bad ways: bulk and round trips through a shaper before the API server, beside what
// `kubectl port-forward` makes of the same way; and bulk by the number of streams, and how round trips are spread, on the
// way as it is. Tables in bench/results/, pictures in docs/bench/.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "#base/error.ts";
import * as cluster from "#testbed/cluster.ts";
import { apiServerPort, checkoutRoot, nodeAddress } from "#testbed/layout.ts";
import { formatPlot, type Plot, type Series } from "./plot.ts";
import { Results, type Report } from "./results.ts";
import { namespace, node, onLaptop, script, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";

const shaperPort = 16_443;
const forwardPort = 18_080;
const bulkSeconds = 4;
const requests = 1000;
/** One way, ms. */
const delays = [0, 5, 10, 25, 50];
/** Of packets, at 10 ms one way. */
const losses = [0, 0.0001, 0.001, 0.01];
const lossyDelayMs = 10;
const streamCounts = [1, 2, 4, 8, 16];

const ours = { name: "telepresence", url: "http://target/" };
const kubectl = { name: "kubectl port-forward", url: `http://127.0.0.1:${forwardPort}/` };
const both = [ours, kubectl];

type Way = "up" | "down";

export async function benchShaped(report: Report): Promise<void> {
  const results = new Results("shaped", report);
  await withTarget(
    manifest,
    (line) => report(line, ""),
    async () => {
      await results.begin();
      await onNamedWay(undefined, async () => {
        await plotStreams(results);
        await plotRoundTrips(results);
      });
      await plotShaped(
        results,
        "delay",
        delays.map((delayMs) => ({ at: delayMs * 2, delayMs, loss: 0 })),
      );
      await plotShaped(
        results,
        "loss",
        losses.map((loss) => ({ at: loss * 100, delayMs: lossyDelayMs, loss })),
      );
    },
  );
  results.write();
}

interface Condition {
  /** On the plot's axis. */
  readonly at: number;
  readonly delayMs: number;
  readonly loss: number;
}

async function plotShaped(results: Results, name: "delay" | "loss", conditions: readonly Condition[]): Promise<void> {
  const points = new Map<string, [number, number][]>();
  for (const condition of conditions) {
    await onNamedWay(condition, async () => {
      for (const way of ["up", "down"] as const) {
        const [mine, base] = [await bulk(ours.url, way, 1), await bulk(kubectl.url, way, 1)];
        pointsOf(points, `${ours.name}, ${way}`).push([condition.at, mine]);
        pointsOf(points, `${kubectl.name}, ${way}`).push([condition.at, base]);
        const what = `bulk ${way}, round trip + ${condition.delayMs * 2} ms, ${condition.loss * 100} % of packets lost`;
        results.add({ what, ours: mine, base, baseName: kubectl.name, unit: "Gbit/s" });
      }
    });
  }
  write(`throughput-${name}`, {
    title:
      name === "delay"
        ? "One stream, by the length of the way"
        : `One stream, by loss, round trip + ${2 * lossyDelayMs} ms`,
    xLabel: name === "delay" ? "added round trip, ms" : "packets lost, %",
    yLabel: "Gbit/s",
    series: [...points].map(([key, list]) => ({ name: key, points: list })),
  });
}

async function plotStreams(results: Results): Promise<void> {
  const series: Series[] = [];
  for (const way of ["up", "down"] as const) {
    const points: Record<string, [number, number][]> = { [ours.name]: [], [kubectl.name]: [] };
    for (const streams of streamCounts) {
      const [mine, base] = [await bulk(ours.url, way, streams), await bulk(kubectl.url, way, streams)];
      points[ours.name]?.push([streams, mine]);
      points[kubectl.name]?.push([streams, base]);
      results.add({
        what: `bulk ${way}, ${streams} streams`,
        ours: mine,
        base,
        baseName: kubectl.name,
        unit: "Gbit/s",
      });
    }
    for (const [name, list] of Object.entries(points)) series.push({ name: `${name}, ${way}`, points: list });
  }
  const labels = { xLabel: "streams at once", yLabel: "Gbit/s" };
  write("throughput-streams", { title: "Bulk, by the number of streams", ...labels, xScale: "log", series });
}

async function plotRoundTrips(results: Results): Promise<void> {
  const series: Series[] = [];
  for (const { name, url } of both) {
    const { quantilesMs } = await script<{ quantilesMs: readonly number[] }>(
      "http-client.mjs",
      url,
      "latency",
      requests,
    );
    series.push({ name, points: quantilesMs.map((ms, index) => [ms, index]) });
    results.add({ what: `round trip, ${name}, p50`, ours: quantilesMs[50] ?? Number.NaN, unit: "ms" });
    results.add({ what: `round trip, ${name}, p99`, ours: quantilesMs[99] ?? Number.NaN, unit: "ms" });
  }
  const labels = { xLabel: "milliseconds", yLabel: "% of requests answered" };
  write("round-trips", { title: "HTTP round trips on one kept connection", ...labels, xScale: "log", series });
}

async function bulk(url: string, way: Way, streams: number): Promise<number> {
  const args = [`${url}${way}`, way, bulkSeconds, streams];
  return (await script<{ gbitPerSecond: number }>("http-client.mjs", ...args)).gbitPerSecond;
}

/** Both of them connected by that way: the shaper before the API server, or none. */
async function onNamedWay(
  shape: Pick<Condition, "delayMs" | "loss"> | undefined,
  run: () => Promise<void>,
): Promise<void> {
  const target = `${nodeAddress}:${apiServerPort}`;
  const shaper =
    shape === undefined
      ? undefined
      : await started([
          node,
          join(checkoutRoot, "bench/shaper.mjs"),
          `${shaperPort}`,
          target,
          `${shape.delayMs}`,
          `${shape.loss}`,
        ]);
  const server = shape === undefined ? [] : ["--server", `https://127.0.0.1:${shaperPort}`];
  const forward = await started([
    "kubectl",
    ...server,
    "port-forward",
    "-n",
    namespace,
    "deployment/target",
    `${forwardPort}:8080`,
  ]);
  try {
    await onLaptop(`telepresence connect -n ${namespace} ${server.join(" ")}`);
    await run();
  } finally {
    await onLaptop("telepresence quit", true);
    await ended(forward);
    if (shaper !== undefined) await ended(shaper); // the next one takes its port
  }
}

async function started(argv: readonly string[]): Promise<ChildProcess> {
  const { file, args } = cluster.laptop(argv);
  const child = spawn(file, [...args], { stdio: ["ignore", "pipe", "ignore"] });
  const said = await Promise.race([once(child.stdout, "data"), once(child, "exit")]);
  if (child.exitCode === null) return child;
  throw new AppError("command_failed", `"${argv.join(" ")}" ended with code ${String(said[0])}`);
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, "exit");
  if (child.kill()) await exit;
}

function pointsOf(points: Map<string, [number, number][]>, key: string): [number, number][] {
  const list = points.get(key) ?? [];
  points.set(key, list);
  return list;
}

function write(name: string, plot: Plot): void {
  const folder = join(checkoutRoot, "docs", "bench");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.svg`), formatPlot(plot));
}
