// Pure: whether a pod has room for an agent that shares its memory limit. The kubelet limits a pod's cgroup only when
// every container in it has a limit, or when the pod names one itself.
import type { Container, Pod, PodMetrics } from "#kube/objects.ts";

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

const factors: Readonly<Record<string, number>> = {
  m: 1e-3,
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** Kubernetes' notation of amounts; undefined for none, and for what it does not allow. */
export function parseQuantity(text: string | undefined): number | undefined {
  const [, digits, suffix = ""] = /^\+?(\d+\.?\d*(?:[eE][+-]?\d+)?)([mkMGTP]|[KMGTP]i)?$/.exec(text ?? "") ?? [];
  const factor = factors[suffix];
  return digits === undefined || factor === undefined ? undefined : Math.ceil(Number(digits) * factor);
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
