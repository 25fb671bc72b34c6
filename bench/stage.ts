// Where the benchmarks of the product run: the laptop, the processes between it and the pod, and what they cost.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { AppError } from "#base/error.ts";
import { build } from "#scripts/build.ts";
import { imageFile } from "#scripts/image.ts";
import * as cluster from "#testbed/cluster.ts";
import { checkoutRoot, laptopNamespace, namespaceFile } from "#testbed/layout.ts";
import { listPids, namespaceAt, namespaceOf } from "#testbed/processes.ts";
import { median } from "./results.ts";

export const namespace = "bench";
export const node = join(checkoutRoot, "dist", "node", "bin", "node");

/** What is built in a cluster that is up, with the target in a namespace of its own; all of it is gone afterwards. */
export async function withTarget(
  manifest: string,
  say: (line: string) => void,
  run: () => Promise<void>,
): Promise<void> {
  await build(say);
  await cluster.up({ say });
  await cluster.importImage(imageFile());
  await cluster.kubectl(["delete", "namespace", namespace, "--ignore-not-found"]); // what an ended run left
  await cluster.kubectl(["create", "namespace", namespace]);
  await cluster.kubectl(["apply", "-n", namespace, "-f", "-"], { input: manifest });
  await cluster.kubectl(["rollout", "status", "-n", namespace, "deployment/target", "--timeout=90s"]);
  await cluster.kubectl(["rollout", "status", "-n", namespace, "deployment/caller", "--timeout=90s"]);
  try {
    await run();
  } finally {
    await onLaptop("telepresence uninstall --everything; telepresence quit", true);
    await cluster.kubectl(["delete", "namespace", namespace, "--wait=false"], { allowFailure: true });
  }
}

export async function onLaptop(line: string, allowFailure = false): Promise<string> {
  const result = await cluster.onLaptop(["sh", "-c", line], { allowFailure: true, timeoutMs: 180_000 });
  if (result.code !== 0 && !allowFailure) {
    throw new AppError("command_failed", `"${line}" ended with code ${result.code}: ${result.stderr.trim()}`);
  }
  return result.stdout;
}

/** Runs a script of bench/ on the laptop; what it prints. */
export async function script<T>(file: string, ...args: readonly (string | number)[]): Promise<T> {
  return JSON.parse(await onLaptop(`${node} ${join(checkoutRoot, "bench", file)} ${args.join(" ")}`)) as T;
}

export async function repeated(measure: () => Promise<number>, times: number): Promise<number> {
  const values: number[] = [];
  for (let run = 0; run < times; run++) values.push(await measure());
  return median(values);
}

/** The process on the laptop whose command line holds these words. */
export function laptopProcess(words: string): number {
  const laptop = namespaceAt(namespaceFile(laptopNamespace(1)));
  return findProcess(words, (pid) => namespaceOf(pid, "net") === laptop);
}

/** The process of a pod. */
export async function podProcess(inNamespace: string, label: string, words: string): Promise<number> {
  const { stdout } = await cluster.kubectl([
    "get",
    "pods",
    "-n",
    inNamespace,
    "-l",
    label,
    "-o",
    "jsonpath={.items[0].metadata.uid}",
  ]);
  return findProcess(words, (pid) => readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(stdout.trim()));
}

function findProcess(words: string, isThere: (pid: number) => boolean): number {
  const found = listPids().find((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").includes(words) && isThere(pid);
    } catch {
      return false; // gone meanwhile
    }
  });
  if (found === undefined) throw new AppError("not_found", `no process "${words}" runs there`);
  return found;
}

/** Processor time that it has used, user and system. */
export function cpuSeconds(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Memory of its own, in MB. */
export function anonymousMegabytes(pid: number): number {
  const line = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1] ?? Number.NaN) / 1000;
}
