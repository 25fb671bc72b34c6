// What the tests of this tier share: the product on a laptop, objects of a test's own in the cluster, and waiting.
// A file of tests takes a `Lab` with a laptop, a manager namespace and namespaces of its own (never `default`), so that
// files can run side by side. Nothing here sleeps blindly: `until` asks again and again, with a deadline.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "#base/error.ts";
import type { AgentMode } from "#wire/connect-choices.ts";
import { build } from "#scripts/build.ts";
import { imageFile } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { run, type RunOptions, type RunResult } from "#testbed/exec.ts";
import * as layout from "#testbed/layout.ts";
import { listPids, namespaceAt, namespaceOf } from "#testbed/processes.ts";

export const toolsImage = layout.images.tools;

/** A cluster that is up and has the image of this very dist/; quick when nothing changed. */
export async function prepare(): Promise<void> {
  if (!existsSync(imageFile())) await build(() => undefined);
  await cluster.up();
  const { size, mtimeMs } = statSync(imageFile());
  const stamp = `${size} ${mtimeMs}`;
  // in the cluster's own folder: a fresh cluster has no images
  const stampFile = join(layout.stateDir, "lab-image");
  if (existsSync(stampFile) && readFileSync(stampFile, "utf8") === stamp) return;
  await cluster.importImage(imageFile());
  // what runs is of the image before, under the same name
  await cluster.kubectl(["delete", "deployment", "-A", "-l", "app.kubernetes.io/name=traffic-manager", "--wait=true"]);
  writeFileSync(stampFile, stamp);
}

export interface LabOptions {
  readonly laptop?: cluster.LaptopNumber;
  /** `undefined`: wherever the product looks by itself. */
  readonly managerNamespace?: string | undefined;
  /** Default: the ordinary user of the laptop. */
  readonly user?: cluster.LaptopUser;
  readonly clusterUser?: cluster.ClusterUser;
  /** Default: `sidecar`, which most files are about; ephemeral.test.ts is about the others. */
  readonly agent?: AgentMode;
  /** Process whose mounts the laptop's programs see, where a test has changed /etc or /run for itself. */
  readonly mountsOf?: number;
}

/** Commands that know `--manager-namespace`. */
const placed = ["connect", "list", "intercept", "replace", "ingest", "uninstall"];
/** chosen: a first intercept on a busy machine, with room. */
const cliTimeoutMs = 150_000;

/** One laptop with the product on it. */
export class Lab {
  readonly options: LabOptions;

  constructor(options: LabOptions) {
    this.options = options;
  }

  /** How this laptop's user runs a program: also for `cluster.laptop()` and `cluster.onLaptop()`. */
  get laptopOptions(): cluster.LaptopOptions {
    const { laptop = 1, user = layout.ordinaryUser.name, clusterUser = "admin" } = this.options;
    return { laptop, user, clusterUser };
  }

  /** The words of a command line, with the manager's namespace where the command takes it. */
  words(args: readonly string[]): readonly string[] {
    const { managerNamespace } = this.options;
    const [command = "", ...rest] = args;
    const place =
      managerNamespace === undefined || !placed.includes(command) ? [] : ["--manager-namespace", managerNamespace];
    const agent = command === "intercept" ? ["--agent", this.options.agent ?? "sidecar"] : [];
    return ["telepresence", command, ...place, ...agent, ...rest];
  }

  /** Runs `telepresence …` to its end, whatever its exit code. */
  async cli(args: readonly string[], more: cluster.LaptopOptions = {}): Promise<RunResult> {
    const options = { ...this.laptopOptions, ...more, allowFailure: true, timeoutMs: cliTimeoutMs };
    return await this.#run(this.words(args), options);
  }

  /** The same where it has to succeed, with nothing but warnings on stderr. Gives stdout. */
  async ok(...args: readonly string[]): Promise<string> {
    const result = await this.cli(args);
    const strange = result.stderr.split("\n").filter((line) => line !== "" && !line.startsWith("Warning: "));
    if (result.code === 0 && strange.length === 0) return result.stdout;
    const said = `${result.stdout}${result.stderr}`.trim();
    throw new AppError("command_failed", `telepresence ${args.join(" ")} ended with code ${result.code}: ${said}`);
  }

  /** `--format json`, parsed. */
  async json<T>(...args: readonly string[]): Promise<T> {
    const [command = "", ...rest] = args;
    return JSON.parse(await this.ok(command, "--format", "json", ...rest)) as T;
  }

  /** `telepresence …` that goes on while the test does something else. */
  start(args: readonly string[], more: cluster.LaptopOptions = {}): Running {
    return this.spawn(this.words(args), more);
  }

  /** Any program of the laptop. */
  spawn(argv: readonly string[], more: cluster.LaptopOptions = {}): Running {
    return new Running(this.#enter(argv, { ...this.laptopOptions, ...more }));
  }

  /** A shell line as the laptop's user, whatever its exit code. */
  async sh(line: string, more: cluster.LaptopOptions = {}): Promise<RunResult> {
    return await this.#run(["sh", "-c", line], { ...this.laptopOptions, ...more, allowFailure: true });
  }

  /** The same as root of the laptop. */
  async rootSh(line: string): Promise<string> {
    return (await this.sh(line, { user: "root" })).stdout;
  }

  async quit(): Promise<void> {
    await this.cli(["quit"]);
  }

  /** Process ids of a program of ours that run on this laptop, as the machine counts them. */
  pids(program: "daemon" | "helper" | "cli"): readonly number[] {
    const network = namespaceAt(layout.namespaceFile(layout.laptopNamespace(this.laptopNumber)));
    return listPids().filter((pid) => {
      if (network === undefined || namespaceOf(pid, "net") !== network) return false;
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        return words.some((word) => word.endsWith(`/${program}/start.js`)) && words[0]?.endsWith("/node") === true;
      } catch {
        return false; // it has just ended
      }
    });
  }

  /** Everything of the laptop that the product could leave changed, as text to compare. */
  async traces(): Promise<Readonly<Record<string, string>>> {
    const parts = {
      devices: "ip -o link | sed 's/^[0-9]*: //'",
      routes: "ip route show table all; ip -6 route show table all; ip rule",
      "nft tables": "nft list ruleset",
      "resolv.conf": "cat /etc/resolv.conf",
      mounts: "cut -d' ' -f1-3 /proc/self/mounts | grep -v ' /run/netns/' | sort",
      sockets: "ss -HlnA tcp,udp | awk '{print $1, $5}' | sort",
    };
    const entries = Object.entries(parts).map(async ([name, line]) => [name, await this.rootSh(line)] as const);
    return Object.fromEntries(await Promise.all(entries));
  }

  /** The sockets and locks a user's programs made for one another. */
  async runtimeFiles(): Promise<string> {
    const { uid } = layout.ordinaryUser;
    return await this.rootSh(`ls /run/user/${uid}/telepresence /tmp/telepresence-${uid} 2>/dev/null`);
  }

  #enter(argv: readonly string[], options: cluster.LaptopOptions): cluster.SpawnSpec {
    const { file, args } = cluster.laptop(argv, options);
    const { mountsOf } = this.options;
    if (mountsOf === undefined) return { file, args };
    return { file, args: args.map((word) => word.replace(/^--mount=.*/, `--mount=/proc/${mountsOf}/ns/mnt`)) };
  }

  async #run(argv: readonly string[], options: cluster.LaptopOptions & RunOptions): Promise<RunResult> {
    const { env: _env, cwd: _cwd, ...runOptions } = options;
    const { file, args } = this.#enter(argv, options);
    return await run(file, args, runOptions);
  }

  get laptopNumber(): cluster.LaptopNumber {
    return this.options.laptop ?? 1;
  }
}

/** Those that have not ended. */
const runningPrograms = new Set<Running>();

/** To be called later: ends what was started since. */
export function endNewerPrograms(): () => Promise<void> {
  const before = new Set(runningPrograms);
  return async () => {
    const newer = [...runningPrograms].filter((program) => !before.has(program));
    await Promise.all(newer.map((program) => program[Symbol.asyncDispose]()));
  };
}

/** A program that was started and is watched. Kill it by its pid only. */
export class Running {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly #ended: Promise<number>;
  readonly #news = new Set<() => void>();

  constructor(spec: cluster.SpawnSpec) {
    this.child = spawn(spec.file, [...spec.args], { stdio: ["pipe", "pipe", "pipe"] });
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => this.#add("stdout", text));
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => this.#add("stderr", text));
    runningPrograms.add(this);
    this.#ended = once(this.child, "close").then(([code, signal]) => {
      runningPrograms.delete(this);
      for (const wake of this.#news) wake();
      return (code as number | null) ?? (signal === "SIGKILL" ? 137 : 143);
    });
  }

  get said(): string {
    return `${this.stdout}${this.stderr}`;
  }
  get running(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  kill(signal: NodeJS.Signals = "SIGTERM"): void {
    this.child.kill(signal);
  }

  /** Resolves when the output holds this text. */
  async says(text: string | RegExp, limitMs = 90_000): Promise<void> {
    const seen = (): boolean => (typeof text === "string" ? this.said.includes(text) : text.test(this.said));
    const limit = AbortSignal.timeout(limitMs);
    while (!seen()) {
      if (!this.running) await this.#ended;
      if (seen()) return;
      if (!this.running || limit.aborted) {
        const why = this.running ? `within ${limitMs / 1000} s` : "before it ended";
        throw new AppError("timeout", `the program did not say ${String(text)} ${why}; it said: ${this.said}`);
      }
      await this.#next(limit);
    }
  }

  /** Its exit code. */
  async ends(limitMs = 60_000): Promise<number> {
    const limit = AbortSignal.timeout(limitMs);
    const late = once(limit, "abort").then(() => undefined);
    const code = await Promise.race([this.#ended, late]);
    if (code !== undefined) return code;
    this.kill("SIGKILL");
    throw new AppError("timeout", `the program did not end within ${limitMs / 1000} s; it said: ${this.said}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.running) this.kill("SIGKILL");
    await this.#ended;
  }

  #add(name: "stdout" | "stderr", text: string): void {
    this[name] += text;
    for (const wake of this.#news) wake();
  }

  #next(limit: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#news.delete(wake);
        limit.removeEventListener("abort", wake);
        resolve();
      };
      this.#news.add(wake);
      limit.addEventListener("abort", wake);
    });
  }
}

/** Asks until the answer is something other than undefined or false; then gives it. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
  { limitMs = 60_000, everyMs = 100 }: { readonly limitMs?: number; readonly everyMs?: number } = {},
): Promise<T> {
  const endMs = performance.now() + limitMs;
  for (;;) {
    let last: unknown;
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() > endMs) {
      throw new AppError("timeout", `${what} did not come about within ${limitMs / 1000} s`, { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

export type Manifest = Readonly<Record<string, unknown>>;

/** Namespaces of a test's own: made empty, even where an earlier run left them. */
export async function freshNamespaces(...names: readonly string[]): Promise<void> {
  const flags = ["--ignore-not-found", "--wait=true", "--timeout=100s"];
  await cluster.kubectl(["delete", "namespace", ...names, ...flags], { timeoutMs: 120_000 });
  for (const name of names) await cluster.kubectl(["create", "namespace", name]);
}

/** Does not wait: whoever wants the name again does. */
export async function removeNamespaces(...names: readonly string[]): Promise<void> {
  await cluster.kubectl(["delete", "namespace", ...names, "--ignore-not-found", "--wait=false"]);
}

export async function apply(namespace: string, ...manifests: readonly Manifest[]): Promise<void> {
  const input = manifests.map((manifest) => JSON.stringify(manifest)).join("\n---\n");
  await cluster.kubectl(["apply", "-n", namespace, "-f", "-"], { input });
}

export async function rolledOut(namespace: string, ...workloads: readonly string[]): Promise<void> {
  for (const workload of workloads) {
    if (workload.startsWith("replicaset/")) {
      // kubectl knows no rollout of these
      const ready = async (): Promise<boolean> =>
        (await field(namespace, workload, ".status.readyReplicas")) ===
        (await field(namespace, workload, ".spec.replicas"));
      await until(`${workload} to be ready`, ready);
      continue;
    }
    await cluster.kubectl(["rollout", "status", "-n", namespace, workload, "--timeout=120s"], { timeoutMs: 130_000 });
  }
}

/** Stdout of a kubectl that has to succeed. */
export async function kubectl(...args: readonly string[]): Promise<string> {
  return (await cluster.kubectl(args)).stdout;
}

/** A field of an object, parsed where it is more than a word. */
export async function field(namespace: string, object: string, path: string): Promise<string> {
  return await kubectl("get", "-n", namespace, object, "-o", `jsonpath={${path}}`);
}

export interface WebApp {
  readonly name: string;
  readonly kind?: "Deployment" | "StatefulSet" | "ReplicaSet";
  readonly replicas?: number;
  /** Ports the container declares; the first is the one hello listens on. */
  readonly ports?: readonly Manifest[];
  /** Ports of the service; none: no service. */
  readonly servicePorts?: readonly Manifest[];
  readonly headless?: boolean;
  readonly pod?: Manifest;
  readonly container?: Manifest;
}

/** The sample hello on a workload and a service of another shape. */
export function webApp(app: WebApp): readonly Manifest[] {
  const { name, kind = "Deployment", replicas = 1, ports = [{ name: "http", containerPort: 8000 }] } = app;
  const { servicePorts = [{ name: "http", port: 80, targetPort: "http" }], headless = false } = app;
  const labels = { app: name };
  const container = {
    name,
    image: toolsImage,
    imagePullPolicy: "IfNotPresent",
    command: ["python3", "/samples/hello.py"],
    ports,
    env: [
      { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
      { name: "DRAIN_SECONDS", value: "4" }, // room for a machine that is busy with other things
    ],
    resources: { requests: { cpu: "10m", memory: "32Mi" } },
    readinessProbe: { httpGet: { path: "/healthz", port: 8000 }, periodSeconds: 1 },
    securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
    ...app.container,
  };
  const pod = {
    terminationGracePeriodSeconds: 15,
    securityContext: { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: "RuntimeDefault" } },
    containers: [container],
    ...app.pod,
  };
  const workload: Manifest = {
    apiVersion: "apps/v1",
    kind,
    metadata: { name, labels },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: pod },
      ...(kind === "StatefulSet" ? { serviceName: name } : {}),
    },
  };
  if (servicePorts.length === 0) return [workload];
  return [workload, service(name, servicePorts, headless ? { clusterIP: "None" } : {})];
}

export function service(name: string, ports: readonly Manifest[], more: Manifest = {}, selects = name): Manifest {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name },
    spec: { selector: { app: selects }, ports, ...more },
  };
}

/** A program of fixtures/ as a laptop runs it: `node FILE ARGS`. */
export function fixture(name: string, ...args: readonly string[]): readonly string[] {
  return [
    join(layout.checkoutRoot, "dist/node/bin/node"),
    join(layout.checkoutRoot, "test/cluster/fixtures", name),
    ...args,
  ];
}

/** One row of the test's output: what was measured, or said. */
export function report(what: string, facts: unknown): void {
  const text = typeof facts === "string" ? facts.trim() : JSON.stringify(facts);
  // oxlint-disable-next-line no-console -- the one place where these tests speak
  console.log(`[figure] ${what}: ${text}`);
}
