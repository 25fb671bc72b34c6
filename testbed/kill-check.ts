// Run by hand: `node testbed/kill-check.ts [ROUNDS]`. Kills `up` at moments spread over its whole run, each time runs
// `down` and compares the machine with what it was before; then kills it again and runs `up` to its end.
// It takes the cluster away, so it is not part of a test run.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { down, leftovers, up } from "./cluster.ts";
import { run } from "./exec.ts";
import { checkoutRoot } from "./layout.ts";
import { identify, isAlive, listPids } from "./processes.ts";

const upTakesMs = 12_000;
const rounds = Number(process.argv[2] ?? "8");
const programs = /^(kube|containerd.*|pause|coredns|etcd|runc)$/;

/** What must be the same afterwards. */
async function takeSnapshot(): Promise<readonly string[]> {
  const folders = ["/run", "/var/lib", "/var/log", "/opt", "/etc"];
  const names = folders.flatMap((folder) => list(folder).map((name) => join(folder, name)));
  const rules = await run("nft", ["list", "ruleset"]);
  const links = await run("ip", ["-o", "link"]);
  const running = listPids().filter((pid) => {
    const identity = identify(pid);
    return identity !== undefined && isAlive(identity) && programs.test(read(`/proc/${pid}/comm`).trim());
  });
  return [
    ...names,
    ...readFileSync("/proc/self/mounts", "utf8").split("\n").filter(isNotAnothers).sort(),
    readFileSync("/etc/resolv.conf", "utf8"),
    rules.stdout,
    links.stdout,
    ...list("/sys/fs/cgroup").flatMap((name) => list(join("/sys/fs/cgroup", name)).map((child) => `${name}/${child}`)),
    ...running.map((pid) => `process ${pid} ${read(`/proc/${pid}/comm`)}`),
  ];
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

await down();
const before = await takeSnapshot();
let failures = 0;
for (let round = 0; round < rounds; round += 1) {
  const delayMs = Math.round(((round + 0.3) / rounds) * upTakesMs);
  await killUpAfter(delayMs);
  await down();
  const after = await takeSnapshot();
  const changed = [...after.filter((fact) => !before.includes(fact)), ...leftovers()];
  const gone = before.filter((fact) => !after.includes(fact));
  if (changed.length + gone.length > 0) failures += 1;
  process.stdout.write(`killed after ${delayMs} ms, then down: ${changed.length} things left, ${gone.length} gone\n`);
  for (const fact of [...changed, ...gone]) process.stdout.write(`  ${fact}\n`);
}
for (const delayMs of [1_000, upTakesMs / 2]) {
  await killUpAfter(delayMs);
  await up();
  process.stdout.write(`killed after ${delayMs} ms, then up: the cluster answers\n`);
  if (delayMs === 1_000) await down();
}
process.exitCode = failures === 0 ? 0 : 1;
