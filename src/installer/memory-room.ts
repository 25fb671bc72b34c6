// Pure: whether a pod has room for an agent that shares its memory limit. The kubelet limits a pod's cgroup only when
// every container in it has a limit, or when the pod names one itself.
import type { Container, Pod, PodMetrics } from "#kube/objects.ts";
import { parseAmount } from "#kube/quantity.ts";

/**
 * Memory that an agent may come to use. Chosen: the reliability targets allow it 60 MB after ten minutes' load; measured
 * 45 MB when it starts.
 */
export const agentBudgetBytes = 64 * 1024 * 1024;
/** Chosen: an application's usage is known as of up to a minute ago, and moves. */
const wantedFreeBytes = 2 * agentBudgetBytes;

export type MemoryRoom =
  | { readonly kind: "unlimited" }
  | { readonly kind: "enough" | "short" | "unknown"; readonly limitBytes: number; readonly text: string };

/** `usage` is undefined where nobody tells it. */
export function judgeMemory(pod: Pod, usage: PodMetrics | undefined): MemoryRoom {
  const limitBytes = podMemoryLimit(pod);
  if (limitBytes === undefined) return { kind: "unlimited" };
  const name = pod.metadata.name ?? "";
  const usedBytes = usage === undefined ? undefined : sumUsage(usage);
  if (usedBytes === undefined) {
    const text = `pod ${name} has a memory limit of ${mebibytes(limitBytes)}, and metrics.k8s.io does not tell how much of it is free`;
    return { kind: "unknown", limitBytes, text };
  }
  const freeBytes = Math.max(limitBytes - usedBytes, 0);
  const text = `pod ${name} has ${mebibytes(freeBytes)} of its memory limit of ${mebibytes(limitBytes)} free, expected at least ${mebibytes(wantedFreeBytes)}`;
  return { kind: freeBytes >= wantedFreeBytes ? "enough" : "short", limitBytes, text };
}

/** The limit of the pod's cgroup; undefined when it has none. */
export function podMemoryLimit({ spec }: Pod): number | undefined {
  const whole = parseQuantity(spec.resources?.limits?.["memory"]);
  if (whole !== undefined) return whole;
  const limitOf = (container: Container): number | undefined => parseQuantity(container.resources?.limits?.["memory"]);
  const started = spec.initContainers ?? [];
  const limits = [...spec.containers, ...started].map(limitOf);
  if (limits.some((limit) => limit === undefined || limit === 0)) return undefined;
  const beside = started.filter((container) => container.restartPolicy === "Always");
  const running = [...spec.containers, ...beside].reduce((sum, container) => sum + (limitOf(container) ?? 0), 0);
  const before = started.filter((container) => container.restartPolicy !== "Always").map((item) => limitOf(item) ?? 0);
  return Math.max(running, ...before);
}

function sumUsage({ containers = [] }: PodMetrics): number | undefined {
  const used = containers.map((container) => parseQuantity(container.usage?.["memory"]));
  if (used.length === 0 || used.includes(undefined)) return undefined;
  return used.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
}

/** Bytes, rounded up; undefined for none, and for what Kubernetes does not allow. */
export function parseQuantity(text: string | undefined): number | undefined {
  const amount = parseAmount(text);
  return amount === undefined ? undefined : Math.ceil(amount);
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
