// First figures of the whole product on the one-node cluster, from the laptop's network namespace: commands, bulk TCP,
// round trips, new connections, each beside its base line in the same run (`kubectl port-forward`, `node -e 0`). The
// median of several runs; nothing is checked here. Results go to bench/results/ as JSON and as a table.
import { median, Results } from "./results.ts";
import type { Add, Report } from "./results.ts";
import { namespace, node, onLaptop, repeated, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";
import { benchTraffic } from "./traffic.ts";

const runs = 5;

export async function benchProduct(report: Report): Promise<void> {
  const results = new Results("product", report);
  const { add } = results;
  await withTarget(
    manifest,
    (line) => report(line, ""),
    async () => {
      await benchCommands(add);
      await benchTraffic(add);
      await benchIntercept(add);
    },
  );
  results.write();
}

async function benchCommands(add: Add): Promise<void> {
  await onLaptop("telepresence quit", true);
  const bareNode = await timed(`${node} -e 0`);
  add({
    what: "telepresence version, nothing running",
    ours: await timed("telepresence version"),
    base: bareNode,
    baseName: "node -e 0",
    unit: "ms",
  });
  await onLaptop(`telepresence connect -n ${namespace}`);
  const cold: number[] = [];
  for (let run = 0; run < runs; run++) {
    await onLaptop("telepresence quit");
    cold.push(await timeOnce(`telepresence connect -n ${namespace}`));
  }
  add({ what: "connect, daemon not running", ours: median(cold), unit: "ms" });
  add({ what: "connect, connected already", ours: await timed(`telepresence connect -n ${namespace}`), unit: "ms" });
  add({ what: "status, connected", ours: await timed("telepresence status"), unit: "ms" });
}

async function benchIntercept(add: Add): Promise<void> {
  const intercept = "telepresence intercept target --port 9000:http";
  add({ what: "intercept, first (rollout)", ours: await timeOnce(intercept), unit: "ms" });
  const again: number[] = [];
  for (let run = 0; run < runs; run++) {
    await onLaptop("telepresence leave target");
    again.push(await timeOnce(intercept));
  }
  add({ what: "intercept, agent there", ours: median(again), unit: "ms" });
  await onLaptop("telepresence leave target");
}

/** Median wall time of the command, ms; entering the laptop's namespaces, measured with `true`, is taken off. */
async function timed(line: string): Promise<number> {
  return await repeated(() => timeOnce(line), runs);
}

let enteringMs: number | undefined;
async function timeOnce(line: string): Promise<number> {
  const wall = async (command: string): Promise<number> => {
    const startMs = performance.now();
    await onLaptop(command);
    return performance.now() - startMs;
  };
  enteringMs ??= median([await wall("true"), await wall("true"), await wall("true")]);
  return Math.max(0, (await wall(line)) - enteringMs);
}
