// An event on a workload, as `kubectl describe` shows it (core/v1 Event). Events are for people: they expire by
// themselves after the server's time (one hour unless set otherwise), and who may not write them loses nothing else.
import { randomBytes } from "node:crypto";
import type { Kube } from "./client.ts";
import type { KubeEvent } from "./objects.ts";
import { events } from "./objects.ts";
import { findWorkload, workloadResources } from "./workloads.ts";
import type { WorkloadKind } from "./workloads.ts";

export interface WorkloadEvent {
  readonly workload: { readonly kind: WorkloadKind; readonly name: string; readonly namespace: string };
  /** CamelCase, for machines. */
  readonly reason: string;
  /** For people; cut at 1024 bytes, the API's own limit. */
  readonly message: string;
  readonly type: "Normal" | "Warning";
}

/** Longest name of an object, less the suffix that makes an event's name unique. */
const maxNameLength = 253 - 17;
const maxMessageBytes = 1024;

/** False when the workload is gone. */
export async function recordWorkloadEvent(kube: Kube, event: WorkloadEvent, signal: AbortSignal): Promise<boolean> {
  const { kind, name, namespace } = event.workload;
  const found = await findWorkload(kube, event.workload, signal);
  if (found === undefined) return false;
  const now = new Date(kube.clock.wallMs()).toISOString().replace(/\.\d+Z$/, "Z");
  const { group, version } = workloadResources[kind];
  const uid = found.object.metadata.uid;
  const object: KubeEvent & Record<string, unknown> = {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: `${name.slice(0, maxNameLength)}.${randomBytes(8).toString("hex")}`, namespace },
    involvedObject: { apiVersion: `${group}/${version}`, kind, name, namespace, ...(uid === undefined ? {} : { uid }) },
    reason: event.reason,
    message: cut(event.message),
    type: event.type,
    source: { component: "telepresence" },
    firstTimestamp: now,
    lastTimestamp: now,
    count: 1,
  };
  await kube.create(events, object, signal);
  return true;
}

function cut(message: string): string {
  const bytes = Buffer.from(message, "utf8");
  // A character cut in two becomes one that says so.
  return bytes.length <= maxMessageBytes ? message : bytes.subarray(0, maxMessageBytes - 3).toString("utf8");
}
