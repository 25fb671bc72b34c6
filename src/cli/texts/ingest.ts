// One ingest for people and for scripts.
import type { Environment } from "#cli/environment-syntax.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import type { KeyValue } from "./key-values.ts";
import { formatKeyValues } from "./key-values.ts";
import { describePodPorts, podPortPairs, podPortsToJson } from "./pod-ports.ts";

const blockIndent = 3;

/** The block below `Using Deployment hello` and below a workload in `list`. */
export function formatIngest(info: IngestInfo): readonly string[] {
  const pairs: KeyValue[] = [
    { key: "Container name", value: info.containerName },
    { key: "Pod", value: info.podName ?? "none runs now" },
  ];
  if (info.mountPoint !== undefined) pairs.push({ key: "Volume Mount Point", value: info.mountPoint });
  return formatKeyValues([...pairs, ...podPortPairs(info.toPod)], blockIndent);
}

/** A line of `status`. */
export function formatIngestLine({ workload, containerName, mountPoint, toPod }: IngestInfo): string {
  const files = mountPoint === undefined ? "" : `, files in ${mountPoint}`;
  return `${workload.name}: container ${containerName}${files}${describePodPorts(toPod)}`;
}

/** In `status` and `list`, in the keys of 2.31. */
export function ingestToJson(info: IngestInfo): Readonly<Record<string, unknown>> {
  const { workload, containerName: container, mountPoint: mount, podName: pod_name } = info;
  const to_pod = podPortsToJson(info.toPod);
  return { workload: workload.name, namespace: workload.namespace, container, mount, pod_name, to_pod };
}

/** The answer of `ingest`. */
export function ingestDetailToJson(
  info: IngestInfo,
  belongings: {
    readonly environment: Environment | undefined;
    readonly volumes: { readonly root: string; readonly mounts: readonly string[] } | undefined;
  },
): Readonly<Record<string, unknown>> {
  const { workload, containerName, podName, toPod } = info;
  const { environment, volumes } = belongings;
  return {
    workload_name: workload.name,
    workload_kind: workload.kind,
    namespace: workload.namespace,
    container: containerName,
    pod_name: podName,
    to_pod: podPortsToJson(toPod),
    environment,
    mount: volumes && { local_dir: volumes.root, mounts: volumes.mounts },
  };
}
