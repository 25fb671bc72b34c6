// First figures of the whole product on the one-node cluster, from the laptop's network namespace: commands, bulk TCP,
// round trips, new connections, each beside its base line in the same run (`kubectl port-forward`, `node -e 0`). The
// median of several runs; nothing is checked here. Results go to bench/results/ as JSON and as a table.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { AppError } from "#base/error.ts";
import { build } from "#scripts/build.ts";
import { imageFile } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { checkoutRoot, images } from "#testbed/layout.ts";
import { median, Results } from "./results.ts";
import type { Figure, Report } from "./results.ts";

const namespace = "bench";
const runs = 5;
const client = join(checkoutRoot, "bench", "http-client.mjs");
const node = join(checkoutRoot, "dist", "node", "bin", "node");

const manifest = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: target, labels: { app: target } }
spec:
  selector: { matchLabels: { app: target } }
  template:
    metadata: { labels: { app: target } }
    spec:
      containers:
        - name: web
          image: ${images.tools}
          command:
            - node
            - -e
            - |
              const block = Buffer.alloc(65536);
              require("http").createServer((request, response) => {
                if (request.method === "POST") {
                  request.resume();
                  request.on("end", () => response.end("ok"));
                } else if (request.url === "/down") {
                  const send = () => { while (response.write(block)); };
                  response.on("drain", send);
                  send();
                } else response.end("ok");
              }).listen(8080)
          ports: [{ name: http, containerPort: 8080 }]
          readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: target }
spec:
  selector: { app: target }
  ports:
    - { name: http, port: 80, targetPort: http }
`;

export async function benchProduct(report: Report): Promise<void> {
  const say = (line: string): void => report(line, "");
  await build(say);
  await cluster.up({ say });
  await cluster.importImage(imageFile());
  await cluster.kubectl(["delete", "namespace", namespace, "--ignore-not-found"]); // what an ended run left
  await cluster.kubectl(["create", "namespace", namespace]);
  await cluster.kubectl(["apply", "-n", namespace, "-f", "-"], { input: manifest });
  await cluster.kubectl(["rollout", "status", "-n", namespace, "deployment/target", "--timeout=90s"]);
  const results = new Results("product", report);
  const { add } = results;
  try {
    await benchCommands(add);
    await benchTraffic(add);
    await benchIntercept(add);
  } finally {
    await onLaptop("telepresence uninstall --everything; telepresence quit", true);
    await cluster.kubectl(["delete", "namespace", namespace, "--wait=false"], { allowFailure: true });
  }
  results.write();
}

type Add = (figure: Figure) => void;

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

async function benchTraffic(add: Add): Promise<void> {
  const forward = await portForward(["8080:8080"]);
  try {
    const web = { ours: "http://target/", base: "http://127.0.0.1:8080/" };
    const baseName = "kubectl port-forward";
    for (const direction of ["up", "down"]) {
      for (const streams of [1, 8]) {
        const measure = (url: string): Promise<number> => repeated(() => bulk(url, direction, streams), 3);
        const [ours, base] = [await measure(web.ours), await measure(web.base)];
        add({ what: `bulk TCP ${direction}, ${streams} streams`, ours, base, baseName, unit: "Gbit/s" });
      }
    }
    const latency = async (url: string): Promise<{ p50Ms: number; p99Ms: number }> =>
      JSON.parse(await onLaptop(`${node} ${client} ${url} latency 1000`)) as { p50Ms: number; p99Ms: number };
    const [ours, base] = [await latency(web.ours), await latency(web.base)];
    add({ what: "HTTP keep-alive round trip, p50", ours: ours.p50Ms, base: base.p50Ms, baseName, unit: "ms" });
    add({ what: "HTTP keep-alive round trip, p99", ours: ours.p99Ms, base: base.p99Ms, baseName, unit: "ms" });
    const rate = async (url: string): Promise<number> =>
      (JSON.parse(await onLaptop(`${node} ${client} ${url} connections 1000 50`)) as { perSecond: number }).perSecond;
    add({
      what: "new connections, 50 at once",
      ours: await repeated(() => rate(web.ours), 3),
      base: await repeated(() => rate(web.base), 3),
      baseName,
      unit: "requests/s",
    });
  } finally {
    forward.kill();
  }
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

async function bulk(url: string, direction: string, streams: number): Promise<number> {
  const text = await onLaptop(`${node} ${client} ${url}${direction} ${direction} 3 ${streams}`);
  return (JSON.parse(text) as { gbitPerSecond: number }).gbitPerSecond;
}

async function portForward(ports: readonly string[]): Promise<ChildProcess> {
  const spec = cluster.laptop(["kubectl", "port-forward", "-n", namespace, "deployment/target", ...ports]);
  const child = spawn(spec.file, [...spec.args], { stdio: ["ignore", "pipe", "ignore"] });
  await once(child.stdout, "data");
  return child;
}

async function onLaptop(line: string, allowFailure = false): Promise<string> {
  const result = await cluster.onLaptop(["sh", "-c", line], { allowFailure: true, timeoutMs: 180_000 });
  if (result.code !== 0 && !allowFailure) {
    throw new AppError("command_failed", `"${line}" ended with code ${result.code}: ${result.stderr.trim()}`);
  }
  return result.stdout;
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

async function repeated(measure: () => Promise<number>, times: number): Promise<number> {
  const values: number[] = [];
  for (let run = 0; run < times; run++) values.push(await measure());
  return median(values);
}
