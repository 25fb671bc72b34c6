// The target on the cluster, reached by the product and by `kubectl port-forward`, which is the base line, side by side.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import * as cluster from "#testbed/cluster.ts";
import { Results, type Add, type Report } from "./results.ts";
import { namespace, onLaptop, withTarget } from "./stage.ts";
import { manifest } from "./target.ts";

export const forwarded = "http://127.0.0.1:8080/";
export const ours = "http://target/";
export const baseName = "kubectl port-forward";

export async function beside(name: string, report: Report, measure: (add: Add) => Promise<void>): Promise<void> {
  const results = new Results(name, report);
  await withTarget(
    manifest,
    (line) => report(line, ""),
    async () => {
      await onLaptop(`telepresence quit; telepresence connect -n ${namespace}`);
      await results.begin();
      const forward = await portForward(["8080:8080"]);
      try {
        await measure(results.add);
      } finally {
        forward.kill();
      }
    },
  );
  results.write();
}

/** What the target's pod says of itself at this place. */
export async function targetPod(place: string): Promise<string> {
  const found = ["get", "pods", "-n", namespace, "-l", "app=target", "-o", `jsonpath={.items[0].${place}}`];
  return (await cluster.kubectl(found)).stdout;
}

async function portForward(ports: readonly string[]): Promise<ChildProcess> {
  const spec = cluster.laptop(["kubectl", "port-forward", "-n", namespace, "deployment/target", ...ports]);
  const child = spawn(spec.file, [...spec.args], { stdio: ["ignore", "pipe", "ignore"] });
  await once(child.stdout, "data");
  return child;
}
