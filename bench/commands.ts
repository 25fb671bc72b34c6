// Commands on the one-node cluster, from the laptop's network namespace: how long they take, beside their base lines of the
// same run; `connect` on an empty cluster beside a bare pod of the same image.
import { imageReference } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { median, Results } from "./results.ts";
import type { Add, Report } from "./results.ts";
import { namespace, node, onLaptop, repeated, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";

const runs = 5;
const installs = 3;

export async function benchCommands(report: Report): Promise<void> {
  const results = new Results("commands", report);
  await withTarget(
    manifest,
    (line) => report(line, ""),
    async () => {
      await onLaptop("telepresence quit", true);
      await results.begin();
      const bareNode = await timed(`${node} -e 0`);
      const base = { base: bareNode, baseName: "node -e 0", unit: "ms" };
      results.add({ what: "telepresence version", ours: await timed("telepresence version"), ...base });
      await benchInstall(results.add);
      await benchConnect(results.add);
      results.add({ what: "status, connected", ours: await timed("telepresence status"), ...base });
    },
  );
  results.write();
}

/** Into a cluster without a manager, and how long a pod of its image takes that does nothing. */
async function benchInstall(add: Add): Promise<void> {
  const [ours, bare]: [number[], number[]] = [[], []];
  for (let run = 0; run < installs; run++) {
    bare.push(await timeBarePod(`bare${run}`));
    await onLaptop("telepresence uninstall --everything; telepresence quit", true);
    // Uninstalling leaves the namespace to the cluster, which takes seconds for it.
    await cluster.kubectl(["wait", "--for=delete", "namespace/telepresence", "--timeout=60s"], { allowFailure: true });
    ours.push(await timeOnce(`telepresence connect -n ${namespace}`));
  }
  const base = { base: median(bare), baseName: "a bare pod of the same image", unit: "ms" };
  add({ what: "connect on an empty cluster, daemon not running", ours: median(ours), ...base });
}

/** Until kubelet says that it is ready; the two commands that ask are taken off. */
async function timeBarePod(name: string): Promise<number> {
  const container = {
    name: "bare",
    image: imageReference,
    command: ["/usr/bin/node", "-e", "setInterval(() => 0, 1e9)"],
  };
  const spec = { terminationGracePeriodSeconds: 0, containers: [{ ...container, imagePullPolicy: "IfNotPresent" }] };
  const pod = { apiVersion: "v1", kind: "Pod", metadata: { name }, spec };
  const asking = await wall(() => cluster.kubectl(["get", "--raw", "/readyz"]));
  const took = await wall(async () => {
    await cluster.kubectl(["create", "-n", namespace, "-f", "-"], { input: JSON.stringify(pod) });
    await cluster.kubectl(["wait", "-n", namespace, "--for=condition=Ready", `pod/${name}`, "--timeout=60s"]);
  });
  await cluster.kubectl(["delete", "pod", name, "-n", namespace, "--wait=false"]);
  return took - 2 * asking;
}

async function benchConnect(add: Add): Promise<void> {
  const connect = `telepresence connect -n ${namespace}`;
  const cold: number[] = [];
  for (let run = 0; run < runs; run++) {
    await onLaptop("telepresence quit");
    cold.push(await timeOnce(connect));
  }
  add({ what: "connect, daemon not running", ours: median(cold), unit: "ms" });
  add({ what: "connect, connected already", ours: await timed(connect), unit: "ms" });
}

/** Median wall time of the command, ms; entering the laptop's namespaces, measured with `true`, is taken off. */
async function timed(line: string): Promise<number> {
  return await repeated(() => timeOnce(line), runs);
}

let enteringMs: number | undefined;
async function timeOnce(line: string): Promise<number> {
  const entering = async (): Promise<number> => await wall(() => onLaptop("true"));
  enteringMs ??= median([await entering(), await entering(), await entering()]);
  return Math.max(0, (await wall(() => onLaptop(line))) - enteringMs);
}

async function wall(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}
