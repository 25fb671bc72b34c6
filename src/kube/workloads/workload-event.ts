// An event on a workload, as `kubectl describe` shows it (core/v1 Event). Events are for people: they expire by
// themselves after the server's time (one hour unless set otherwise), and who may not write them loses nothing else.
import { createHash } from "node:crypto";
import { isAppError } from "#base/error.ts";
import type { Kube } from "#kube/client.ts";
import type { KubeEvent } from "#kube/objects.ts";
import { events } from "#kube/objects.ts";
import { findWorkload, workloadResources } from "./workloads.ts";
import type { WorkloadKind } from "./workloads.ts";

export interface WorkloadEvent {
  readonly workload: { readonly kind: WorkloadKind; readonly name: string; readonly namespace: string };
  /** CamelCase, for machines. */
  readonly reason: string;
  /** For people; cut at 1024 bytes, the API's own limit. */
  readonly message: string;
  readonly type: "Normal" | "Warning";
  /** When it happened, by the wall clock; who writes it may have been without a network until now. */
  readonly atMs: number;
}

/** Longest name of an object, less the suffix that makes an event's name unique. */
const maxNameLength = 253 - 17;
const maxMessageBytes = 1024;

/** May be asked for again when the answer was lost: it is there once. False when the workload is gone. */
export async function recordWorkloadEvent(kube: Kube, event: WorkloadEvent, signal: AbortSignal): Promise<boolean> {
  const { kind, name, namespace } = event.workload;
  const found = await findWorkload(kube, event.workload, signal);
  if (found === undefined) return false;
  const at = new Date(event.atMs).toISOString().replace(/\.\d+Z$/, "Z");
  const { group, version } = workloadResources[kind];
  const uid = found.object.metadata.uid;
  const object: KubeEvent & Record<string, unknown> = {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: `${name.slice(0, maxNameLength)}.${suffixOf(event, uid)}`, namespace },
    involvedObject: { apiVersion: `${group}/${version}`, kind, name, namespace, ...(uid === undefined ? {} : { uid }) },
    reason: event.reason,
    message: cut(event.message),
    type: event.type,
    source: { component: "telepresence" },
    firstTimestamp: at,
    lastTimestamp: at,
    count: 1,
  };
  try {
    await kube.create(events, object, signal);
  } catch (error) {
    if (!isAppError(error, "conflict")) throw error;
  }
  return true;
}

function suffixOf({ reason, message, atMs }: WorkloadEvent, uid = ""): string {
  return createHash("sha256").update([uid, reason, message, atMs].join("\0")).digest("hex").slice(0, 16);
}

function cut(message: string): string {
  const bytes = Buffer.from(message, "utf8");
  // A character cut in two becomes one that says so.
  return bytes.length <= maxMessageBytes ? message : bytes.subarray(0, maxMessageBytes - 3).toString("utf8");
}
