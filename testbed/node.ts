// The node: one process namespace and one mount namespace, in the node's network namespace, that hold etcd, the control
// plane, containerd, kubelet, kube-proxy and every pod. Its first process is `pause`: when that is killed the kernel
// ends everything else, and all mounts go with the last of them, so that nothing is ever left in the machine's own
// mount table or process list.
import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError, invariant } from "#base/error.ts";
import type { Programs } from "./build.ts";
import { lastLines, run, startDaemon, systemEnv } from "./exec.ts";
import * as layout from "./layout.ts";
import { componentArguments, type ComponentName } from "./node-config.ts";
import { childrenOf, identify, isAlive, namespaceAt, namespaceOf, type ProcessIdentity } from "./processes.ts";

const { stateDir, logDir, containerdSocket } = layout;

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
${onOverlay() ? `mount -t tmpfs tmpfs ${layout.dataDir}` : ""}
cover /var/log; cover /var/lib; cover /opt; cover /run
mkdir -p /run/netns /run/etcd
mount --make-rshared /
echo ready
exec "$0"
`;

/** Containers' files are overlays, and an overlay cannot lie on another: in a dev container they go to memory. */
function onOverlay(): boolean {
  const overlayMagic = 0x79_4c_76_30;
  return statfsSync(layout.dataDir).type === overlayMagic;
}

/** Starts the first process of the node and returns when its namespaces are ready. */
export async function startNodeAnchor(pause: string): Promise<Anchor> {
  mkdirSync(logDir, { recursive: true });
  const enter = [
    `--net=${layout.namespaceFile(layout.namespaces.node)}`,
    "unshare",
    "--mount",
    "--propagation",
    "slave",
  ];
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
    throw new AppError(
      "command_failed",
      `namespaces could not be set up: ${lastLines(readFileSync(logFile, "utf8"), 4)}`,
      {
        hint: "a container needs the privileges to mount and to make namespaces (docker run --privileged)",
      },
    );
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

export function startComponent(name: ComponentName, anchor: Anchor, programs: Pick<Programs, "kube">): Component {
  const program = name === "containerd" ? [name] : [programs.kube, name];
  const command = [...program, ...componentArguments[name]()];
  const child = startDaemon("nsenter", [...enterNode(anchor), ...command], componentLog(name));
  const entry = child.pid === undefined ? undefined : identify(child.pid);
  if (entry === undefined) throw new AppError("command_failed", `${name} could not be started`);
  return { name, entry };
}

export function componentLog(name: ComponentName): string {
  return join(logDir, `${name}.log`);
}

/**
 * Ends one component and waits until it is gone. One that is still there after `graceMs` is killed, as kubelet would:
 * an API server waits a whole minute for clients that keep their connections.
 */
export async function stopComponent(component: Component, signal: NodeJS.Signals, graceMs: number): Promise<void> {
  const signalIt = (name: NodeJS.Signals): void => {
    for (const pid of childrenOf(component.entry.pid)) process.kill(pid, name);
  };
  signalIt(signal);
  const startedMs = performance.now();
  for (let killed = false; isAlive(component.entry);) {
    const waitedMs = performance.now() - startedMs;
    if (waitedMs > graceMs && !killed) {
      signalIt("SIGKILL");
      killed = true;
    }
    if (waitedMs > graceMs + killDeadlineMs) throw new AppError("timeout", `${component.name} did not end on SIGKILL`);
    await sleep(20);
  }
}
const killDeadlineMs = 10_000;

/** Throws, with the end of its log, when one of these has ended. */
export function requireAlive(components: readonly Component[]): void {
  const dead = components.find((component) => !isAlive(component.entry));
  if (dead !== undefined) {
    throw new AppError("command_failed", `${dead.name} ended:\n${tailOfLog(dead.name, 12)}`);
  }
}

export function tailOfLog(name: ComponentName, lines: number): string {
  const file = componentLog(name);
  return existsSync(file) ? lastLines(readFileSync(file, "utf8"), lines) : "";
}

/** Gives the node's containerd an image; the archive is a docker-archive tar. */
export async function importInto(anchor: Anchor, archive: string): Promise<void> {
  const ctr = ["ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", archive];
  await run("nsenter", [...enterNode(anchor), ...ctr], { timeoutMs: 300_000 });
}
