// The one-node Kubernetes test cluster: up, down, and what tests do to it. Open this file first; README.md says how to
// use it. Also the command line: `node testbed/cluster.ts up|down|status|kubectl …|laptop …`.
// Invariant: what `up` made is found again by name (namespaces, cgroup, folders), never only by a record, so `down`
// and the next `up` clean up after a run that was killed at any moment.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import { buildPrograms, kubernetesVersion, type Programs } from "./build.ts";
import { lastLines, run, type RunOptions, type RunResult } from "./exec.ts";
import { buildImages } from "./images.ts";
import {
  laptopSpawnSpec,
  layLaptop,
  offerProduct,
  startLaptopAnchor,
  type LaptopOptions,
  type SpawnSpec,
} from "./laptop.ts";
import * as layout from "./layout.ts";
import { takeLock, type Lock } from "./lock.ts";
import { createCgroups, leftCgroups, removeCgroups } from "./cgroups.ts";
import { createNetwork, removeNetwork, runIn } from "./network.ts";
import * as node from "./node.ts";
import { componentNames, writeNodeConfig, type ComponentName } from "./node-config.ts";
import { createPki, writeKubeconfigs } from "./pki.ts";
import { installPackages, requireRoot, requireTun } from "./prerequisites.ts";
import { isAlive, killAll, namespaceAt, processesEntering, processesIn, type ProcessIdentity } from "./processes.ts";
import { silent, type Say } from "./progress.ts";

export { blackHole, cutWire, readdress, restoreWire, runIn } from "./network.ts";
export { namespaces } from "./layout.ts";
export { kubeconfigFile as kubeconfigFor } from "./layout.ts";
export type { ClusterUser, CredentialKind, LaptopNumber, LaptopUser } from "./layout.ts";
export type { LaptopOptions, SpawnSpec } from "./laptop.ts";

interface State {
  /** Hash of everything that the cluster was made from. */
  readonly key: string;
  readonly kube: string;
  readonly node: node.Anchor;
  readonly laptops: Readonly<Record<layout.LaptopNumber, node.Anchor>>;
  readonly publicServer: ProcessIdentity;
  readonly components: readonly node.Component[];
}

const killDeadlineMs = 15_000;
const readyDeadlineMs = 180_000;

export interface UpOptions {
  readonly say?: Say;
}

/** Brings the cluster up, or finds it up. Resolves when CoreDNS and the samples answer. */
export async function up({ say = silent }: UpOptions = {}): Promise<void> {
  requireRoot();
  requireTun();
  using _lock = await lock("up", say);
  await installPackages(say);
  const programs = await buildPrograms(say);
  const archives = await buildImages(programs, say);
  const key = clusterKey([...Object.values(programs), ...archives]);
  const running = await healthyState();
  if (running?.key === key) {
    await offerToLaptops(running);
    say("the cluster is up already");
    return;
  }
  if (leftovers().length > 0) {
    say(
      running === undefined ? "removing what an earlier run left" : "removing a cluster that was made of other sources",
    );
    await remove();
  }
  try {
    await create(programs, archives, key, say);
  } catch (error) {
    await explainAndRemove(error, programs.kube, say);
    throw error;
  }
}

/** Removes the cluster and everything that runs in it or in a laptop. Harmless when there is none. */
export async function down({ say = silent }: UpOptions = {}): Promise<void> {
  requireRoot();
  using _lock = await lock("down", say);
  say("ending the cluster (usually 1 s)");
  await remove();
  say("the cluster is gone");
}

async function lock(doing: string, say: Say): Promise<Lock> {
  return await takeLock(layout.clusterName, doing, (holder) => say(`waiting for another run to end: ${holder}`));
}

async function create(programs: Programs, archives: readonly string[], key: string, say: Say): Promise<void> {
  say(`starting Kubernetes ${kubernetesVersion} (usually 10 to 15 s until everything answers)`);
  mkdirSync(layout.logDir, { recursive: true });
  mkdirSync(layout.sharedDir, { recursive: true });
  writeNodeConfig();
  writeFileSync(join(layout.configDir, "resolv.conf"), `nameserver ${layout.podUpstream}\n`);
  createCgroups();
  await Promise.all([createPki().then(writeKubeconfigs), createNetwork()]);

  const anchor = await node.startNodeAnchor(programs.pause);
  const start = (name: ComponentName): node.Component => node.startComponent(name, anchor, programs);
  const components = [start("etcd"), start("kube-apiserver"), start("containerd")];
  const [publicServer, first, second] = await Promise.all([
    startPublicServer(),
    startLaptop(1, programs),
    startLaptop(2, programs),
    importAll(anchor, components, archives),
  ]);
  await probe("api", components, silent);
  // kubelet starts after the images are there: a pod that meets a missing one waits out a back-off
  components.push(start("kube-controller-manager"), start("kube-scheduler"), start("kubelet"), start("kube-proxy"));
  const state: State = {
    key,
    kube: programs.kube,
    node: anchor,
    laptops: { 1: first, 2: second },
    publicServer,
    components,
  };
  await applyManifests(state);
  say("the control plane answers; waiting for CoreDNS and the samples");
  await probe("ready", components, silent);
  await offerToLaptops(state);
  writeState(state);
  say("the cluster is up: CoreDNS and the samples answer");
}

async function startLaptop(laptop: layout.LaptopNumber, programs: Programs): Promise<node.Anchor> {
  layLaptop(laptop);
  return await startLaptopAnchor(laptop, programs.kube, programs.pause);
}

async function offerToLaptops(state: State): Promise<void> {
  await Promise.all(layout.laptopNumbers.map((laptop) => offerProduct(laptop, state.laptops[laptop])));
}

async function startPublicServer(): Promise<ProcessIdentity> {
  const script = join(layout.checkoutRoot, "testbed/public-server.ts");
  const network = `--net=${layout.namespaceFile(layout.namespaces.router)}`;
  return await node.startAnchor(
    "nsenter",
    [network, process.execPath, script],
    join(layout.logDir, "public-server.log"),
  );
}

async function importAll(anchor: node.Anchor, components: readonly node.Component[], archives: readonly string[]) {
  await waitFor("containerd", () => existsSync(layout.containerdSocket), components);
  for (const archive of archives) await node.importInto(anchor, archive);
}

async function waitFor(what: string, done: () => boolean, components: readonly node.Component[]): Promise<void> {
  const endMs = performance.now() + 30_000;
  while (!done()) {
    node.requireAlive(components);
    if (performance.now() > endMs) throw new AppError("timeout", `${what} did not start within 30 s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function applyManifests(state: State): Promise<void> {
  const files = ["manifests", "samples"].flatMap((folder) => {
    const dir = join(layout.checkoutRoot, "testbed", folder);
    return readdirSync(dir)
      .filter((name) => name.endsWith(".yaml"))
      .sort()
      .map((name) => join(dir, name));
  });
  const texts = files.map((file) => readFileSync(file, "utf8").replace("CLUSTER_DNS", layout.clusterDnsAddress));
  const input = texts.join("\n---\n");
  await kubectlWith(state.kube, ["apply", "--validate=false", "-f", "-"], { input });
}

/** Runs probe.ts in the node's network until it ends; fails early when a component has died. */
async function probe(what: "api" | "ready", components: readonly node.Component[], say: Say): Promise<void> {
  const script = join(layout.checkoutRoot, "testbed/probe.ts");
  const network = `--net=${layout.namespaceFile(layout.namespaces.node)}`;
  let last = "";
  const onLine = (line: string): void => {
    last = line;
    say(line);
  };
  const death = Promise.withResolvers<never>();
  const watch = setInterval(() => {
    try {
      node.requireAlive(components);
    } catch (error) {
      death.reject(error);
    }
  }, 200);
  try {
    const probing = run("nsenter", [network, process.execPath, script, what], { timeoutMs: readyDeadlineMs, onLine });
    await Promise.race([probing, death.promise]);
  } catch (error) {
    if (!isAppError(error, "timeout")) throw error;
    const seconds = readyDeadlineMs / 1000;
    throw new AppError("timeout", `the cluster did not get ready within ${seconds} s; last seen: ${last}`, {
      cause: error,
    });
  } finally {
    clearInterval(watch);
  }
}

/** A component that died has said why in the error; when something only took too long, everybody is asked. */
async function explainAndRemove(error: unknown, kube: string, say: Say): Promise<void> {
  if (toAppError(error).code === "timeout") {
    for (const question of [
      ["get", "pods", "-A", "-o", "wide"],
      ["get", "events", "-A"],
    ]) {
      const answer = await kubectlWith(kube, question, { allowFailure: true, timeoutMs: 10_000 }).catch(
        () => undefined,
      );
      if (answer !== undefined) say(`kubectl ${question.join(" ")}:\n${lastLines(answer.stdout, 20)}`);
    }
    for (const name of componentNames) {
      const tail = node.tailOfLog(name, 3);
      if (tail !== "") say(`end of ${name}'s log:\n${tail}`);
    }
  }
  say("removing what was started");
  await remove();
}

/** Processes, control groups, namespaces, files; each step finds its things by name. */
async function remove(): Promise<void> {
  const files = layout.allNamespaces.map(layout.namespaceFile);
  const networks = files.map(namespaceAt).filter((id) => id !== undefined);
  await killAll(() => [...processesIn(networks), ...files.flatMap(processesEntering)], killDeadlineMs);
  await removeCgroups();
  await removeNetwork();
  rmSync(layout.dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  rmSync(layout.stateDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  const left = leftovers();
  if (left.length > 0) throw new AppError("internal", `something of the cluster is left: ${left.join(", ")}`);
}

/** What of a cluster is on this machine, by name; empty after `down`. */
export function leftovers(): readonly string[] {
  const files = [layout.stateDir, layout.dataDir, ...layout.allNamespaces.map(layout.namespaceFile)];
  const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
  const ours = [layout.stateDir, layout.dataDir];
  return [
    ...files.filter((file) => existsSync(file)),
    ...mounts
      .map((line) => line.split(" ")[1] ?? "")
      .filter((at) => ours.some((dir) => at === dir || at.startsWith(`${dir}/`))),
    ...leftCgroups(),
  ];
}

/** Files of this folder that no cluster is made from. */
const beside = /\.test\.ts$|^(command-line|kill-check|progress)\.ts$/;

function clusterKey(files: readonly string[]): string {
  const hash = createHash("sha256").update(files.join("\n"));
  const folder = join(layout.checkoutRoot, "testbed");
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    if (/\.(ts|yaml|py|mjs)$/.test(name) && !beside.test(name)) hash.update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

function writeState(state: State): void {
  const draft = `${layout.stateFile}.draft`;
  writeFileSync(draft, JSON.stringify(state));
  renameSync(draft, layout.stateFile);
}

function readState(): State | undefined {
  if (!existsSync(layout.stateFile)) return undefined;
  return JSON.parse(readFileSync(layout.stateFile, "utf8")) as State;
}

/** What does not run of a cluster that was up. */
function brokenParts(state: State): readonly string[] {
  const { namespaces, laptopNamespace } = layout;
  return [
    ...(node.anchorLives(state.node, namespaces.node) ? [] : ["node"]),
    ...layout.laptopNumbers.flatMap((laptop) =>
      node.anchorLives(state.laptops[laptop], laptopNamespace(laptop)) ? [] : [`laptop ${laptop}`],
    ),
    ...(isAlive(state.publicServer) ? [] : ["public server"]),
    ...state.components.filter(({ entry }) => !isAlive(entry)).map(({ name }) => name),
  ];
}

async function healthyState(): Promise<State | undefined> {
  const state = readState();
  if (state === undefined || brokenParts(state).length > 0) return undefined;
  const { code } = await kubectlWith(state.kube, ["get", "--raw=/readyz"], { allowFailure: true, timeoutMs: 10_000 });
  return code === 0 ? state : undefined;
}

function requireState(): State {
  requireRoot();
  const state = readState();
  if (state === undefined || !node.anchorLives(state.node, layout.namespaces.node)) {
    throw new AppError("not_found", "the test cluster is not up", { hint: "bring it up with: npm run cluster -- up" });
  }
  return state;
}

/** One line a fact. */
export async function status(): Promise<readonly string[]> {
  requireRoot();
  const state = readState();
  if (state === undefined) return ["the cluster is down"];
  const broken = brokenParts(state);
  if (broken.length > 0) return [`the cluster is broken: ${broken.join(", ")} ended; run up or down`];
  const { stdout } = await kubectlWith(state.kube, ["get", "pods", "-A", "-o", "wide"], { allowFailure: true });
  return [
    `the cluster is up: Kubernetes ${kubernetesVersion}, ${layout.apiServerUrl}`,
    `laptops: ${layout.laptopNumbers.map((n) => `${layout.laptopNamespace(n)} ${layout.laptopAddresses(n).address}`).join(", ")}`,
    `kubeconfigs: ${layout.kubeconfigDir}`,
    `logs: ${layout.logDir}`,
    stdout.trimEnd(),
  ];
}

/** Runs kubectl from the node's network, as admin unless a kubeconfig is named in the arguments. */
export async function kubectl(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return await kubectlWith(requireState().kube, args, options);
}

async function kubectlWith(kube: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const network = `--net=${layout.namespaceFile(layout.namespaces.node)}`;
  const env = { KUBECONFIG: layout.kubeconfigFile("admin"), HOME: layout.homeDir("root", 1), ...options.env };
  return await run("nsenter", [network, kube, "kubectl", ...args], { ...options, env });
}

/** How to start a program on a laptop: `spawn(spec.file, spec.args)`. */
export function laptop(argv: readonly string[], options: LaptopOptions = {}): SpawnSpec {
  return laptopSpawnSpec(requireState().laptops[options.laptop ?? 1], argv, options);
}

/** Runs a program on a laptop to its end. Throws on a failing exit code unless `allowFailure`. */
export async function onLaptop(argv: readonly string[], options: LaptopOptions & RunOptions = {}): Promise<RunResult> {
  const { env: _env, cwd: _cwd, ...runOptions } = options;
  const spec = laptop(argv, options);
  return await run(spec.file, spec.args, runOptions);
}

/** Gives the node an image; the archive is a docker-archive tar. */
export async function importImage(archive: string): Promise<void> {
  await node.importInto(requireState().node, archive);
}

/** The samples in a namespace of a test's own, made when it is missing; resolves when their services answer. */
export async function deploySamples(namespace: string, names: readonly SampleName[] = sampleNames): Promise<void> {
  await kubectl(["create", "namespace", namespace], { allowFailure: true });
  const input = names.map((name) => readFileSync(sampleFile(name), "utf8")).join("\n---\n");
  await kubectl(["apply", "-n", namespace, "-f", "-"], { input });
  for (const name of names) {
    await kubectl(["rollout", "status", "-n", namespace, `deployment/${name}`, "--timeout=90s"]);
  }
  for (const name of names) await answers(namespace, name);
}

/** kube-proxy leads nowhere for up to a second after a rollout is done, which callers see as a refusal. */
async function answers(namespace: string, service: string): Promise<void> {
  const place = "jsonpath={.spec.clusterIP} {.spec.ports[0].port}"; // the first is of TCP
  const { stdout } = await kubectl(["get", "service", service, "-n", namespace, "-o", place]);
  const [address = "", port = ""] = stdout.split(" ");
  const endMs = Date.now() + serviceDeadlineMs;
  for (;;) {
    try {
      await runIn(layout.namespaces.node, "bash", ["-c", `exec 3<>/dev/tcp/${address}/${port}`]);
      return;
    } catch (error) {
      if (Date.now() > endMs) throw error;
      await sleep(servicePollMs);
    }
  }
}
const [serviceDeadlineMs, servicePollMs] = [15_000, 50];

export const sampleNames = ["hello", "visitor", "echo"] as const;
export type SampleName = (typeof sampleNames)[number];

export function sampleFile(name: SampleName): string {
  return join(layout.checkoutRoot, "testbed/samples", `${name}.yaml`);
}

/** Lets the cluster user `small` look and forward ports in one more namespace. */
export async function grantSmall(namespace: string): Promise<void> {
  const binding = {
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: "testbed-small", namespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "testbed-small" },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "small" }],
  };
  await kubectl(["apply", "-f", "-"], { input: JSON.stringify(binding) });
}

/** The signal is SIGTERM or SIGKILL; after SIGTERM open connections have `apiServerGraceMs`. */
export async function stopApiServer(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  await node.stopComponent(apiServerOf(requireState()), signal, apiServerGraceMs);
}
const apiServerGraceMs = 3_000;

/** Resolves when it is ready; harmless when it runs. */
export async function startApiServer(): Promise<void> {
  const state = requireState();
  if (!isAlive(apiServerOf(state).entry)) {
    const started = node.startComponent("kube-apiserver", state.node, state);
    const components = state.components.map((component) => (component.name === "kube-apiserver" ? started : component));
    writeState({ ...state, components });
    await probe("api", [started], silent);
  }
}

export async function restartApiServer(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
  await stopApiServer(signal);
  await startApiServer();
}

function apiServerOf(state: State): node.Component {
  const found = state.components.find(({ name }) => name === "kube-apiserver");
  if (found === undefined) throw new AppError("internal", "the state has no API server");
  return found;
}

if (import.meta.main) {
  // Not awaited: the command line imports this file, which has to be evaluated to its end first.
  void import("./command-line.ts").then(async ({ main }) => {
    process.exitCode = await main(process.argv.slice(2));
  });
}
