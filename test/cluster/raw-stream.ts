// One raw TCP connection of a pod that is never given up, and short ones beside it: fixtures/raw-stream.mjs as a pod.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as cluster from "#testbed/cluster.ts";
import { apply, field, kubectl, toolsImage } from "./lab.ts";

export interface RawStreamState {
  readonly sent: number;
  readonly opened: number;
  readonly errors: readonly string[];
}

/** Gives a way to read its state. */
export async function startRawStream(namespace: string, target: string): Promise<() => Promise<RawStreamState>> {
  const script = readFileSync(join(import.meta.dirname, "fixtures/raw-stream.mjs"), "utf8");
  const container = {
    name: "raw",
    image: toolsImage,
    imagePullPolicy: "IfNotPresent",
    command: ["node", "--input-type=module", "-e", script],
    env: [{ name: "TARGET", value: target }],
  };
  const spec = { terminationGracePeriodSeconds: 1, containers: [container] };
  await apply(namespace, { apiVersion: "v1", kind: "Pod", metadata: { name: "raw-stream" }, spec });
  await kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/raw-stream", "--timeout=60s");
  const ip = await field(namespace, "pod/raw-stream", ".status.podIP");
  const args = ["-s", "--max-time", "20", `http://${ip}:8080/`];
  return async () => JSON.parse(await cluster.runIn(cluster.namespaces.node, "curl", args)) as RawStreamState;
}
