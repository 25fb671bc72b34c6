// What runs on this machine, as /proc tells it. A process belongs to the testbed when its network or mount namespace
// is one of ours: that needs no record of what was started, so it also finds what a killed run left behind.
import { readFileSync, readdirSync, readlinkSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { AppError } from "#base/error.ts";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot: with the pid, names one process for ever. */
  readonly startTicks: number;
}

interface ProcessStat extends ProcessIdentity {
  readonly parent: number;
  readonly state: string;
  readonly threads: number;
}

/** Parses /proc/PID/stat; the command's name is in brackets and may itself hold blanks and brackets. */
export function parseStat(text: string): ProcessStat | undefined {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open === -1 || close === -1) return undefined;
  const pid = Number(text.slice(0, open));
  const fields = text.slice(close + 2).split(" ");
  const [state, parent, threads, startTicks] = [fields[0], Number(fields[1]), Number(fields[17]), Number(fields[19])];
  if (state === undefined || !Number.isSafeInteger(pid) || !Number.isSafeInteger(startTicks)) return undefined;
  return { pid, parent, state, threads, startTicks };
}

export function readProcess(pid: number): ProcessStat | undefined {
  const text = attempt(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  return text === undefined ? undefined : parseStat(text);
}

export function identify(pid: number): ProcessIdentity | undefined {
  const stat = readProcess(pid);
  return stat === undefined ? undefined : { pid, startTicks: stat.startTicks };
}

/** True while that very process runs. A zombie does not, unless threads of it are still ending. */
export function isAlive(process: ProcessIdentity): boolean {
  const stat = readProcess(process.pid);
  if (stat?.startTicks !== process.startTicks) return false;
  return stat.state !== "Z" || stat.threads > 1;
}

export function listPids(): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
}

export function childrenOf(parent: number): readonly number[] {
  return listPids().filter((pid) => readProcess(pid)?.parent === parent);
}

/** `net:[4026531840]`, or undefined when the process is gone. */
export function namespaceOf(pid: number, kind: "net" | "mnt" | "pid"): string | undefined {
  return attempt(() => readlinkSync(`/proc/${pid}/ns/${kind}`));
}

/** The same text for a namespace that a file holds, as `ip netns` makes them. */
export function namespaceAt(file: string): string | undefined {
  const inode = attempt(() => statSync(file).ino);
  return inode === undefined ? undefined : `net:[${inode}]`;
}

/** Processes in one of these network namespaces, or in the mount namespace of such a process. */
export function processesIn(networks: readonly string[]): readonly number[] {
  const own = namespaceOf(process.pid, "mnt");
  const members = listPids().map((pid) => ({ pid, net: namespaceOf(pid, "net"), mnt: namespaceOf(pid, "mnt") }));
  const inside = members.filter(({ net }) => net !== undefined && networks.includes(net));
  const mounts = new Set(inside.map(({ mnt }) => mnt).filter((mnt) => mnt !== undefined && mnt !== own));
  // Kernel threads and this process never match: they are in the machine's own namespaces.
  return members
    .filter(({ pid, net, mnt }) => {
      const matches = (net !== undefined && networks.includes(net)) || (mnt !== undefined && mounts.has(mnt));
      return matches && pid !== process.pid;
    })
    .map(({ pid }) => pid);
}

/** Programs that are on their way into a network namespace and may not have got there yet. */
export function processesEntering(file: string): readonly number[] {
  return listPids().filter((pid) => {
    const text = attempt(() => readFileSync(`/proc/${pid}/cmdline`, "utf8"));
    const [program = "", ...args] = text?.split("\0") ?? [];
    return program.endsWith("nsenter") && args.includes(`--net=${file}`);
  });
}

/**
 * Ends everything that `find` finds, again and again until nothing is found and what was found is gone. A dying process
 * leaves its namespaces before it leaves the process table, and its memory and mounts are given back in between.
 */
export async function killAll(find: () => readonly number[], deadlineMs: number): Promise<number> {
  const endMs = performance.now() + deadlineMs;
  const seen = new Map<string, ProcessIdentity>();
  for (;;) {
    const found = find()
      .map(identify)
      .filter((process) => process !== undefined && isAlive(process));
    for (const process of found) if (process !== undefined) seen.set(`${process.pid} ${process.startTicks}`, process);
    const alive = [...seen.values()].filter(isAlive);
    if (alive.length === 0) return seen.size;
    if (performance.now() > endMs) {
      const pids = alive.map(({ pid }) => pid).join(", ");
      throw new AppError("timeout", `processes ${pids} of the test cluster did not end on SIGKILL`, {
        hint: "look at them with ps, then run down again",
      });
    }
    for (const { pid } of alive) attempt(() => process.kill(pid, "SIGKILL"));
    await sleep(20);
  }
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined; // the process ended between two looks, or the file is not there
  }
}
