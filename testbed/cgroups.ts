// The control groups of the pods: one parent of ours in every hierarchy, made before kubelet starts and removed when
// nothing runs in it any more.
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { clusterName } from "./layout.ts";

const mountPoint = "/sys/fs/cgroup";

/** Where control groups are mounted: one folder on version 2, one a controller on version 1. */
function hierarchies(): readonly string[] {
  if (existsSync(join(mountPoint, "cgroup.controllers"))) return [mountPoint];
  return readdirSync(mountPoint, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(mountPoint, entry.name));
}

/** kubelet wants its root to exist in every hierarchy. */
export function createCgroups(): void {
  for (const parent of hierarchies()) {
    const dir = join(parent, clusterName);
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
  for (const parent of hierarchies()) {
    const dir = join(parent, clusterName);
    if (!existsSync(dir)) continue;
    const groups = [
      dir,
      ...readdirSync(dir, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map((entry) => join(entry.parentPath, entry.name)),
    ];
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

/** Ours that are still there. */
export function leftCgroups(): readonly string[] {
  return hierarchies()
    .map((parent) => join(parent, clusterName))
    .filter((dir) => existsSync(dir));
}
