// `npm run cluster -- kill-check [ROUNDS]`: by hand, and by the cluster tier for a cluster beside its own. Kills `up` at moments spread over its whole run, each time runs
// `down` and compares the machine with what it was before; then kills it again and runs `up` to its end.
// It takes the cluster away.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { down, leftovers, up } from "./cluster.ts";
import { run } from "./exec.ts";
import { checkoutRoot, clusterName } from "./layout.ts";
import { identify, isAlive, listPids, namespaceOf } from "./processes.ts";
import type { Say } from "./progress.ts";

const upTakesMs = 12_000;
const programs = /^(kube|containerd.*|pause|coredns|etcd|runc)$/;

/** What must be the same afterwards. */
async function takeSnapshot(): Promise<readonly string[]> {
  const folders = ["/run", "/var/lib", "/var/log", "/opt", "/etc"];
  const names = folders.flatMap((folder) => list(folder).map((name) => join(folder, name)));
  const rules = await run("nft", ["list", "ruleset"]);
  const links = await run("ip", ["-o", "link"]);
  const running = listPids().filter((pid) => {
    const identity = identify(pid);
    return identity !== undefined && isAlive(identity) && programs.test(nameOf(pid)) && !isOfAnother(pid);
  });
  return [
    ...names,
    ...readFileSync("/proc/self/mounts", "utf8").split("\n").filter(isNotAnothers).sort(),
    readFileSync("/etc/resolv.conf", "utf8"),
    rules.stdout,
    links.stdout,
    ...list("/sys/fs/cgroup").flatMap((name) => list(join("/sys/fs/cgroup", name)).map((child) => `${name}/${child}`)),
    ...running.map((pid) => `process in ${namespaceOf(pid, "mnt")}: ${nameOf(pid)}`),
  ];
}

const nameOf = (pid: number): string => read(`/proc/${pid}/comm`).trim();

/** Another cluster's processes come and go. */
function isOfAnother(pid: number): boolean {
  const cluster = /\/(telepresence-testbed[^/\n]*)/.exec(read(`/proc/${pid}/cgroup`))?.[1];
  return cluster !== undefined && cluster !== clusterName;
}

/** Tests of another tier make network namespaces of their own while this runs; ours are among leftovers(). */
function isNotAnothers(mount: string): boolean {
  return !mount.startsWith("nsfs /run/netns/") || mount.includes("/telepresence-");
}

function list(folder: string): readonly string[] {
  try {
    return readdirSync(folder).sort();
  } catch {
    return []; // a file, or not there
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // ended meanwhile
  }
}

async function killUpAfter(delayMs: number): Promise<void> {
  const script = join(checkoutRoot, "testbed/cluster.ts");
  const child = spawn(process.execPath, [script, "up"], { stdio: "ignore" });
  const ended = once(child, "exit");
  await Promise.race([sleep(delayMs), ended]);
  child.kill("SIGKILL");
  await ended;
}

/** True when nothing was left. */
export async function killCheck(rounds: number, say: Say): Promise<boolean> {
  await down();
  const before = await takeSnapshot();
  let clean = true;
  for (let round = 0; round < rounds; round += 1) {
    const delayMs = Math.round(((round + 0.3) / rounds) * upTakesMs);
    await killUpAfter(delayMs);
    await down();
    const after = await takeSnapshot();
    const changes = [
      ...after.filter((fact) => !before.includes(fact)).map((fact) => `left: ${fact}`),
      ...before.filter((fact) => !after.includes(fact)).map((fact) => `gone: ${fact}`),
      ...leftovers(),
    ];
    clean &&= changes.length === 0;
    say(`killed after ${delayMs} ms, then down: ${changes.length === 0 ? "as before" : changes.join("\n  ")}`);
  }
  await killUpAfter(upTakesMs / 3);
  await up();
  say("killed once more, then up: the cluster answers");
  return clean;
}
