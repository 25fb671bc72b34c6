// The node: one process namespace and one mount namespace, in the node's network namespace, that hold etcd, the control
// plane, containerd, kubelet, kube-proxy and every pod. Its first process is `pause`: when that is killed the kernel
// ends everything else, and all mounts go with the last of them, so that nothing is ever left in the machine's own
// mount table or process list.
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { AppError, invariant } from "#base/error.ts";
import type { Programs } from "./build.ts";
import { lastLines, run, startDaemon, systemEnv } from "./exec.ts";
import * as layout from "./layout.ts";
import { pkiFile } from "./pki.ts";
import { childrenOf, identify, isAlive, namespaceAt, namespaceOf, type ProcessIdentity } from "./processes.ts";

const { stateDir, dataDir, logDir, configDir, nodeAddress, containerdSocket } = layout;

export const componentNames = [
  "etcd",
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "containerd",
  "kubelet",
  "kube-proxy",
] as const;
export type ComponentName = (typeof componentNames)[number];

/** Processes of a component, as /proc knows them outside the node. */
export interface Component {
  readonly name: ComponentName;
  /** Enters the node and waits there for the program. */
  readonly entry: ProcessIdentity;
}

/** Whoever holds a namespace open. */
export interface Anchor {
  readonly init: ProcessIdentity;
}

/**
 * Covers folders that programs write to with memory, so that the machine's own stay as they are; then lets mounts
 * travel between kubelet and containers, but not out.
 */
const nodeMounts = (keep: readonly string[]): string => `set -e
cover() {
  [ -d "$1" ] || return 0
  mkdir -p ${stateDir}/cover; mount -t tmpfs -o mode=755 tmpfs ${stateDir}/cover
  for kept in ${keep.map((path) => `'${path}'`).join(" ")}; do
    case "$kept" in "$1"/*)
      mkdir -p "${stateDir}/cover\${kept#$1}"; mount --rbind "$kept" "${stateDir}/cover\${kept#$1}" ;;
    esac
  done
  mount -n --move ${stateDir}/cover "$1"
}
mount -t proc proc /proc
cover /var/log; cover /var/lib; cover /opt; cover /run
mkdir -p /run/netns /run/etcd
mount --make-rshared /
echo ready
exec "$0"
`;

/** Starts the first process of the node and returns when its namespaces are ready. */
export async function startNodeAnchor(pause: string): Promise<Anchor> {
  mkdirSync(logDir, { recursive: true });
  const enter = [`--net=${layout.namespaceFile(layout.namespaces.node)}`, "unshare", "--mount", "--propagation", "slave"];
  const script = nodeMounts([stateDir, layout.cacheDir]);
  const args = [...enter, "--pid", "--fork", "--kill-child", "/bin/sh", "-c", script, pause];
  const parent = await startAnchor("nsenter", args, join(logDir, "node.log"));
  const [child] = childrenOf(parent.pid);
  const init = child === undefined ? undefined : identify(child);
  if (init === undefined) throw new AppError("internal", "the node's first process ended at once");
  return { init };
}

/** Starts a program that holds namespaces open, and waits until it says `ready`. */
export async function startAnchor(file: string, args: readonly string[], logFile: string): Promise<ProcessIdentity> {
  const log = openSync(logFile, "a", 0o644);
  const options = { detached: true, env: systemEnv(), cwd: "/" } as const;
  const child: ChildProcess = spawn(file, [...args], { ...options, stdio: ["ignore", "pipe", log] });
  closeSync(log);
  child.unref();
  let ready = false;
  const output = child.stdout;
  invariant(output !== null, "a piped output exists");
  for await (const line of createInterface(output)) {
    ready = line === "ready";
    if (ready) break;
  }
  output.destroy();
  const identity = child.pid === undefined ? undefined : identify(child.pid);
  if (!ready || identity === undefined) {
    throw new AppError("command_failed", `namespaces could not be set up: ${lastLines(readFileSync(logFile, "utf8"), 4)}`, {
      hint: "a container needs the privileges to mount and to make namespaces (docker run --privileged)",
    });
  }
  return identity;
}

/** What enters the node: network, mounts and processes, or the network alone. */
export function enterNode(anchor: Anchor): readonly string[] {
  const { pid } = anchor.init;
  const network = `--net=${layout.namespaceFile(layout.namespaces.node)}`;
  return [network, `--mount=/proc/${pid}/ns/mnt`, `--pid=/proc/${pid}/ns/pid`];
}

/** True while the anchor's process is the one that was started, in the namespace that has its name. */
export function anchorLives(anchor: Anchor, namespace: string): boolean {
  return isAlive(anchor.init) && namespaceOf(anchor.init.pid, "net") === namespaceAt(layout.namespaceFile(namespace));
}

export function startComponent(name: ComponentName, anchor: Anchor, programs: Programs): Component {
  const command = name === "containerd" ? ["containerd", ...arguments_[name]()] : [programs.kube, name, ...arguments_[name]()];
  const child = startDaemon("nsenter", [...enterNode(anchor), ...command], componentLog(name));
  const entry = child.pid === undefined ? undefined : identify(child.pid);
  if (entry === undefined) throw new AppError("command_failed", `${name} could not be started`);
  return { name, entry };
}

export function componentLog(name: ComponentName): string {
  return join(logDir, `${name}.log`);
}

/** Ends one component and waits until it is gone. */
export async function stopComponent(component: Component, signal: NodeJS.Signals): Promise<void> {
  for (const pid of childrenOf(component.entry.pid)) process.kill(pid, signal);
  const endMs = performance.now() + stopDeadlineMs;
  while (isAlive(component.entry)) {
    if (performance.now() > endMs) {
      throw new AppError("timeout", `${component.name} did not end within ${stopDeadlineMs / 1000} s of ${signal}`);
    }
    await sleep(20);
  }
}
const stopDeadlineMs = 30_000;

/** Throws, with the end of its log, when one of these has ended. */
export function requireAlive(components: readonly Component[]): void {
  const dead = components.find((component) => !isAlive(component.entry));
  if (dead !== undefined) {
    throw new AppError("command_failed", `${dead.name} ended:\n${tailOfLog(dead.name, 12)}`, {
      hint: `its whole log is ${componentLog(dead.name)}`,
    });
  }
}

export function tailOfLog(name: ComponentName, lines: number): string {
  const file = componentLog(name);
  return existsSync(file) ? lastLines(readFileSync(file, "utf8"), lines) : "";
}

const etcdUrl = "http://127.0.0.1:2379";

const arguments_: Readonly<Record<ComponentName, () => readonly string[]>> = {
  // Nothing here has to survive a power cut, so etcd neither syncs nor uses a disk.
  etcd: () => [
    "--data-dir=/run/etcd",
    "--unsafe-no-fsync",
    `--listen-client-urls=${etcdUrl}`,
    `--advertise-client-urls=${etcdUrl}`,
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--log-level=warn",
  ],
  "kube-apiserver": () => [
    `--etcd-servers=${etcdUrl}`,
    `--service-cluster-ip-range=${layout.serviceRange}`,
    `--advertise-address=${nodeAddress}`,
    "--bind-address=0.0.0.0",
    `--secure-port=${layout.apiServerPort}`,
    `--tls-cert-file=${pkiFile("api.crt")}`,
    `--tls-private-key-file=${pkiFile("api.key")}`,
    `--client-ca-file=${pkiFile("ca.crt")}`,
    `--token-auth-file=${pkiFile("tokens.csv")}`,
    `--service-account-key-file=${pkiFile("sa.pub")}`,
    `--service-account-signing-key-file=${pkiFile("sa.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    `--kubelet-client-certificate=${pkiFile("api-to-kubelet.crt")}`,
    `--kubelet-client-key=${pkiFile("api-to-kubelet.key")}`,
    // log, exec and port-forward go to the node's address: its name resolves nowhere
    "--kubelet-preferred-address-types=InternalIP",
    "--allow-privileged=true",
    "--profiling=false",
  ],
  "kube-controller-manager": () => [
    `--kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--authentication-kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--authorization-kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--service-account-private-key-file=${pkiFile("sa.key")}`,
    `--root-ca-file=${pkiFile("ca.crt")}`,
    `--cluster-cidr=${layout.podRange}`,
    "--allocate-node-cidrs=true",
    "--use-service-account-credentials=true",
    "--leader-elect=false",
    "--kube-api-qps=200",
    "--kube-api-burst=300",
  ],
  "kube-scheduler": () => [
    `--kubeconfig=${pkiFile("scheduler.yaml")}`,
    `--authentication-kubeconfig=${pkiFile("scheduler.yaml")}`,
    `--authorization-kubeconfig=${pkiFile("scheduler.yaml")}`,
    "--leader-elect=false",
  ],
  containerd: () => [`--config=${join(configDir, "containerd.toml")}`, "--log-level=warn"],
  kubelet: () => [
    `--config=${join(configDir, "kubelet.yaml")}`,
    `--kubeconfig=${pkiFile("kubelet.yaml")}`,
    `--hostname-override=${layout.nodeName}`,
    `--node-ip=${nodeAddress}`,
    `--root-dir=${join(dataDir, "kubelet")}`,
  ],
  "kube-proxy": () => [`--config=${join(configDir, "kube-proxy.yaml")}`],
};

/** Writes the configuration files of the components that have one. */
export function writeNodeConfig(): void {
  for (const dir of [configDir, join(configDir, "cni"), dataDir]) mkdirSync(dir, { recursive: true });
  writeFileSync(join(configDir, "containerd.toml"), containerdConfig());
  writeFileSync(join(configDir, "cni/10-testbed.conflist"), JSON.stringify(cniConfig()));
  writeFileSync(join(configDir, "kubelet.yaml"), stringify(kubeletConfig()));
  writeFileSync(join(configDir, "kube-proxy.yaml"), stringify(proxyConfig()));
}

/**
 * restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower a score and fails. The unprivileged settings let
 * a container that is not root bind port 443 and ping.
 */
function containerdConfig(): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return `version = 2
root = "${dataDir}/containerd"
state = "/run/containerd-state"
[grpc]
  address = "${containerdSocket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[${cri}]
  sandbox_image = "${layout.images.pause}"
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[${cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${configDir}/cni"
[${cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`;
}

/** One routed veth a pod: every packet between pods passes the node's own rules, with no bridge in between. */
function cniConfig(): object {
  const ipam = {
    type: "host-local",
    dataDir: "/run/cni",
    ranges: [[{ subnet: layout.nodePodRange }]],
    routes: [{ dst: "0.0.0.0/0" }],
  };
  return {
    cniVersion: "0.4.0",
    name: "testbed",
    plugins: [
      { type: "ptp", ipMasq: false, ipam },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  };
}

function kubeletConfig(): object {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: pkiFile("ca.crt") },
    },
    authorization: { mode: "Webhook" },
    tlsCertFile: pkiFile("kubelet.crt"),
    tlsPrivateKeyFile: pkiFile("kubelet.key"),
    clusterDNS: [layout.clusterDnsAddress],
    clusterDomain: "cluster.local",
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${layout.cgroupName}`,
    failCgroupV1: false,
    failSwapOn: false,
    oomScoreAdj: 0,
    makeIPTablesUtilChains: false,
    evictionHard: { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    imageGCHighThresholdPercent: 100,
    maxPods: 200,
    resolvConf: join(configDir, "resolv.conf"),
    podLogsDir: join(dataDir, "pod-logs"),
    volumePluginDir: "/run/volume-plugins",
    serializeImagePulls: false,
    registryPullQPS: 0,
    kubeAPIQPS: 200,
    kubeAPIBurst: 300,
    eventRecordQPS: 0,
    syncFrequency: "10s",
  };
}

function proxyConfig(): object {
  return {
    apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    mode: "nftables",
    clientConnection: { kubeconfig: pkiFile("proxy.yaml") },
    clusterCIDR: layout.podRange,
    hostnameOverride: layout.nodeName,
    nftables: { minSyncPeriod: "100ms" },
    // Limits of the whole machine, which is not ours to tune.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
  };
}

/** Where control groups are mounted: one folder on version 2, one a controller on version 1. */
function cgroupParents(): readonly string[] {
  const base = "/sys/fs/cgroup";
  if (existsSync(join(base, "cgroup.controllers"))) return [base];
  const skip = new Set(["unified"]);
  return readdirSync(base, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !skip.has(entry.name))
    .map((entry) => join(base, entry.name));
}

/** kubelet wants its root to exist in every hierarchy. */
export function createCgroups(): void {
  for (const parent of cgroupParents()) {
    const dir = join(parent, layout.cgroupName);
    mkdirSync(dir, { recursive: true });
    // A new cpuset has no processors and no memory until it is given its parent's.
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      const [from, to] = [join(parent, file), join(dir, file)];
      if (existsSync(to) && existsSync(from) && readFileSync(to, "utf8").trim() === "") {
        writeFileSync(to, readFileSync(from, "utf8"));
      }
    }
  }
}

/** Innermost first; their processes have ended before. A group is busy for a moment after its last one. */
export async function removeCgroups(): Promise<void> {
  for (const parent of cgroupParents()) {
    const dir = join(parent, layout.cgroupName);
    if (!existsSync(dir)) continue;
    const groups = [dir, ...readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))];
    for (const group of groups.sort((a, b) => b.length - a.length)) await removeGroup(group);
  }
}

async function removeGroup(dir: string): Promise<void> {
  for (let tries = 100; ; tries -= 1) {
    try {
      rmdirSync(dir);
      return;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT") return;
      if (code !== "EBUSY" || tries === 0) throw error;
      await sleep(20);
    }
  }
}

/** Gives the node's containerd an image; the archive is a docker-archive tar. */
export async function importInto(anchor: Anchor, archive: string): Promise<void> {
  const ctr = ["ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", archive];
  await run("nsenter", [...enterNode(anchor), ...ctr], { timeoutMs: 300_000 });
}
