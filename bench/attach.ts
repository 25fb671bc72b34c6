// How long `intercept` takes until the first request is answered by the laptop, counted from the command: with an
// ephemeral agent that has to come, with one that is there, and with a rollout. Base lines of the same run: an ephemeral
// container of the same image that does nothing but answer, made by one call of the API; a command that asks the daemon
// one question; the moment when the new pod is ready.
import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "#scripts/build.ts";
import { imageFile, imageReference } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { checkoutRoot, images } from "#testbed/layout.ts";
import { median, Results } from "./results.ts";
import type { Report } from "./results.ts";

const namespace = "bench-attach";
const rounds = 7;
const node = join(checkoutRoot, "dist", "node", "bin", "node");
const probe = join(checkoutRoot, "bench", "first-answer.mjs");
const laptopPort = 9000;
const barePort = 9100;
/** chosen: kubelet is done with the pod's start. */
const settledMs = 2000;

const server = (port: number, word: string): string =>
  `require("http").createServer((request, response) => response.end("${word}")).listen(${port})`;

function manifest(name: string): string {
  const app = { app: name };
  const web = { image: images.tools, command: ["node", "-e", server(8080, "application")] };
  const probeOfPod = { tcpSocket: { port: 8080 }, periodSeconds: 1 };
  const container = { name: "web", ...web, ports: [{ name: "http", containerPort: 8080 }], readinessProbe: probeOfPod };
  const template = { metadata: { labels: app }, spec: { terminationGracePeriodSeconds: 1, containers: [container] } };
  const spec = { selector: { matchLabels: app }, template };
  const service = { selector: app, ports: [{ name: "http", port: 80, targetPort: "http" }] };
  return [
    { apiVersion: "apps/v1", kind: "Deployment", metadata: { name }, spec },
    { apiVersion: "v1", kind: "Service", metadata: { name }, spec: service },
  ]
    .map((object) => JSON.stringify(object))
    .join("\n---\n");
}

/** Milliseconds. */
interface Round {
  readonly ephemeral: number;
  readonly there: number;
  readonly bare: number;
  readonly afterReady: number;
}

export async function benchAttach(report: Report): Promise<void> {
  await build((line) => report(line, ""));
  await cluster.up({});
  await cluster.importImage(imageFile());
  await cluster.kubectl(["delete", "namespace", namespace, "--ignore-not-found"]);
  await cluster.kubectl(["create", "namespace", namespace]);
  await onLaptop("telepresence", "quit"); // of an earlier run
  const results = new Results("attach", report);
  const laptop = startOnLaptop();
  try {
    await onLaptop("telepresence", "connect", "-n", namespace);
    await results.begin();
    const entering = await medianOf(() => timed(() => onLaptop("true")));
    const status = (await medianOf(() => timed(() => onLaptop("telepresence", "status")))) - entering;
    const asking = await medianOf(() => timed(() => cluster.kubectl(["get", "--raw", "/readyz"])));
    const measured: Round[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      const bare = await measureBare(`bare${round}`);
      const { ephemeral, there } = await measureIntercept(`web${round}`);
      const afterReady = await measureRollout(`roll${round}`);
      measured.push({ ephemeral: ephemeral - entering, there: there - entering, bare: bare - asking, afterReady });
    }
    const middle = (key: keyof Round): number => median(measured.map((item) => item[key]));
    const { add } = results;
    const what = "first answer by the laptop";
    const unit = "ms";
    add({
      what: `${what}, ephemeral agent`,
      ours: middle("ephemeral"),
      base: middle("bare"),
      baseName: "bare container",
      unit,
    });
    add({ what: `${what}, agent there`, ours: middle("there"), base: status, baseName: "telepresence status", unit });
    add({ what: `${what}, agent there, less the command that asks`, ours: middle("there") - status, unit });
    add({ what: `${what}, rollout, after the new pod is ready`, ours: middle("afterReady"), unit });
    add({ what: "canaries of an intercept", ours: median(await canaryTimes()), unit });
  } finally {
    laptop.kill();
    await onLaptop("sh", "-c", "telepresence uninstall --everything; telepresence quit");
    await cluster.kubectl(["delete", "namespace", namespace, "--wait=false"], { allowFailure: true });
  }
  results.write();
}

/** As the daemon's log tells them. */
async function canaryTimes(): Promise<readonly number[]> {
  const search = "grep -h 'canaries sent' $HOME/.cache/telepresence/logs/daemon.log";
  const { stdout } = await cluster.onLaptop(["sh", "-c", search], { timeoutMs: 10_000 });
  return stdout
    .trim()
    .split("\n")
    .slice(-2 * rounds)
    .map((line) => (JSON.parse(line) as { tookMs: number }).tookMs);
}

/** A fresh pod: the first container that comes to one is slower than those after it. */
async function freshPod(name: string): Promise<{ readonly podName: string; readonly address: string }> {
  await cluster.kubectl(["apply", "-n", namespace, "-f", "-"], { input: manifest(name) });
  await cluster.kubectl(["rollout", "status", "-n", namespace, `deployment/${name}`, "--timeout=90s"]);
  const pod = ["get", "pods", "-n", namespace, "-l", `app=${name}`, "-o"];
  const address = (await cluster.kubectl([...pod, "jsonpath={.items[0].status.podIP}"])).stdout;
  const podName = (await cluster.kubectl([...pod, "jsonpath={.items[0].metadata.name}"])).stdout;
  await new Promise((resolve) => setTimeout(resolve, settledMs));
  return { podName, address };
}

const removed = async (name: string): Promise<unknown> =>
  await cluster.kubectl(["delete", "deployment,service", name, "-n", namespace, "--wait=false"]);

/** From the moment when the pod with the agent is ready; callers reach it by its service's address. */
async function measureRollout(name: string): Promise<number> {
  await freshPod(name);
  const service = ["get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}"];
  const address = (await cluster.kubectl(service)).stdout;
  const watch = watchReadyPods(name);
  const startMs = Date.now();
  const answerMs = await untilAnswer(`http://${address}/`, "laptop", () =>
    onLaptop("telepresence", "intercept", name, "--port", `${laptopPort}:http`, "--agent", "sidecar"),
  );
  watch.child.kill();
  const readyMs = [...watch.ready.values()].at(-1) ?? Number.NaN; // the later pod
  await onLaptop("telepresence", "leave", name);
  await removed(name);
  return startMs + answerMs - readyMs;
}

/** Pods in the order in which they became ready, with the time. */
function watchReadyPods(name: string): { readonly child: ChildProcess; readonly ready: ReadonlyMap<string, number> } {
  const template = '{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}';
  const words = ["get", "pods", "-n", namespace, "-l", `app=${name}`, "--watch", "-o", `jsonpath=${template}`];
  const { file, args } = cluster.laptop(["kubectl", ...words]);
  const child = spawn(file, [...args], { stdio: ["ignore", "pipe", "ignore"] });
  const ready = new Map<string, number>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const [pod = "", status] = line.split(" ");
    if (status === "True" && !ready.has(pod)) ready.set(pod, Date.now());
  });
  return { child, ready };
}

async function measureBare(name: string): Promise<number> {
  const { podName, address } = await freshPod(name);
  const tookMs = await untilAnswer(`http://${address}:${barePort}/`, "bare", () => attachBare(podName));
  await removed(name);
  return tookMs;
}

async function measureIntercept(name: string): Promise<Pick<Round, "ephemeral" | "there">> {
  const { address } = await freshPod(name);
  const intercept = (): Promise<unknown> =>
    onLaptop("telepresence", "intercept", name, "--port", `${laptopPort}:http`, "--agent", "ephemeral");
  const url = `http://${address}:8080/`;
  const ephemeral = await untilAnswer(url, "laptop", intercept);
  await onLaptop("telepresence", "leave", name);
  await new Promise((resolve) => setTimeout(resolve, settledMs));
  const there = await untilAnswer(url, "laptop", intercept);
  await onLaptop("telepresence", "leave", name);
  await removed(name);
  return { ephemeral, there };
}

async function attachBare(pod: string): Promise<unknown> {
  const command = ["/usr/bin/node", "-e", server(barePort, "bare")];
  const container = { name: "bare", image: imageReference, imagePullPolicy: "IfNotPresent", command };
  const patch = JSON.stringify({ spec: { ephemeralContainers: [container] } });
  const words = ["patch", "pod", pod, "-n", namespace, "--subresource=ephemeralcontainers", "--type=strategic"];
  return await cluster.kubectl([...words, "-p", patch]);
}

/** Milliseconds from the start of the work to the first answer with that word. */
async function untilAnswer(url: string, word: string, work: () => Promise<unknown>): Promise<number> {
  const args = [`--net=/run/netns/${cluster.namespaces.node}`, node, probe, url, word];
  const child = spawn("nsenter", args, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next(); // ready
  const startMs = Date.now();
  await work();
  const line = await lines.next();
  return Number(line.value) - startMs;
}

function startOnLaptop(): ChildProcess {
  const { file, args } = cluster.laptop([node, "-e", server(laptopPort, "laptop")]);
  return spawn(file, [...args], { stdio: "ignore" });
}

async function onLaptop(...argv: readonly string[]): Promise<unknown> {
  return await cluster.onLaptop(argv, { timeoutMs: 120_000 });
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

async function medianOf(measureOnce: () => Promise<number>): Promise<number> {
  const values: number[] = [];
  for (let run = 0; run < rounds; run += 1) values.push(await measureOnce());
  return median(values);
}
