// The JSON of Telepresence 2.20 and 2.31 that scripts read, made from what our daemon says. Keys that the original
// omits when empty are omitted here too (JSON.stringify drops undefined).
import type { Connection, ListedWorkload, LocalOnlyInfo } from "#wire/control-api.ts";
import type { InterceptInfo, InterceptPort, InterceptState } from "#wire/manager-api.ts";
import { callerPathToJson } from "./caller-path.ts";
import { formatFilter } from "./filter.ts";
import { isReplacement } from "./replacement.ts";
import { isWiretap } from "./wiretap.ts";
import { ingestToJson } from "./ingest.ts";
import { podPortsToJson } from "./pod-ports.ts";
import { previewToJson } from "./preview.ts";
import { proxyToJson } from "./proxy.ts";

const allConnections = "all TCP connections";

/** Numbers of the original's enum InterceptDispositionType. */
const dispositions: Readonly<Record<InterceptState, number>> = {
  active: 1,
  waiting: 2,
  suspended: 3, // NO_CLIENT
  error: 7, // AGENT_ERROR
  removed: 9,
};

/** An intercept as `list --output json` has it: the original's protobuf struct in Go's JSON. */
export function interceptToJson(info: InterceptInfo): Readonly<Record<string, unknown>> {
  const { spec } = info;
  return {
    id: info.id,
    client_session: { session_id: info.sessionId },
    spec: {
      name: spec.name,
      client: info.client,
      agent: spec.workload.name,
      workload_kind: spec.workload.kind,
      namespace: spec.workload.namespace,
      mechanism: spec.filter === undefined ? "tcp" : "http",
      container_name: spec.containerName,
      ...specPortToJson(spec.ports[0]),
      ports: spec.ports.length > 1 ? spec.ports : undefined,
    },
    disposition: dispositions[info.state],
    state: info.state,
    message: unlessEmpty(info.message),
    pod_name: info.pods[0]?.name,
    pod_ip: info.pods[0]?.ip,
    pods: info.pods,
    mechanism_args_desc: formatFilter(spec.filter) || allConnections,
    filter: spec.filter,
    overlaps: info.overlaps,
    refused_by_laptop: info.refusedByLaptop === 0 ? undefined : info.refusedByLaptop,
    copies: info.copies,
    agent_kind: info.agent,
    caller_address_kept: info.callerAddress?.kept,
    existing: spec.existing,
    on_refused: spec.onRefused,
    probes: spec.probes,
    older_connections: info.olderConnections,
    caller_path: callerPathToJson(info),
    tls: spec.tls,
    unread_connections: info.unreadConnections,
    client_mount_point: info.mountPoint,
    to_pod: podPortsToJson(info.toPod),
    ...previewToJson(info),
    modified_at: new Date(info.createdAtMs).toISOString(),
  };
}

/** The original has one port; where there are several, these keys hold the first. */
function specPortToJson(port: InterceptPort | undefined): Readonly<Record<string, unknown>> {
  if (port === undefined) return {};
  return {
    target_host: port.targetHost,
    target_port: port.targetPort,
    port_identifier: portIdentifier(port),
    service_name: port.serviceName,
    service_uid: port.serviceUid,
    service_port_name: port.servicePortName,
    service_port: port.servicePort,
    container_port: port.containerPort,
    protocol: port.protocol.toUpperCase(),
  };
}

const portIdentifier = (port: InterceptPort): string =>
  port.servicePortName ?? String(port.servicePort ?? port.containerPort);

const unlessEmpty = (text: string): string | undefined => (text === "" ? undefined : text);

/** `connect`, in the keys that `status` has for the same. */
export function connectionToJson(
  connection: Connection,
  news: { readonly fresh: boolean; readonly installedManager: boolean },
): Readonly<Record<string, unknown>> {
  return {
    status: "Connected",
    fresh: news.fresh,
    installed_manager: news.installedManager,
    kubernetes_server: connection.server,
    kubernetes_context: connection.context,
    namespace: connection.namespace,
    manager_namespace: connection.managerNamespace,
    mapped_namespaces: connection.mappedNamespaces.length > 0 ? connection.mappedNamespaces : undefined,
    traffic_manager: `v${connection.managerVersion.replace(/^v/, "")}`,
    proxy: proxyToJson(connection),
  };
}

/** One workload of `list`; the intercepts stand under the key of 2.20 and under that of 2.31. */
export function workloadToJson(item: ListedWorkload): Readonly<Record<string, unknown>> {
  const toJson = (info: ListedWorkload["intercepts"][number]) => ({ ...interceptToJson(info), mine: info.mine });
  const intercepts = item.intercepts.filter((info) => !isWiretap(info) && !isReplacement(info)).map(toJson);
  const replacements = item.intercepts.filter(isReplacement).map(toJson);
  const wiretaps = item.intercepts.filter(isWiretap).map(toJson);
  return {
    name: item.name,
    namespace: item.namespace,
    not_interceptable_reason: item.notInterceptableReason,
    workload_resource_type: item.kind,
    agent_version: item.agentVersion,
    intercept_infos: intercepts.length > 0 ? intercepts : undefined,
    intercept_info: intercepts.length > 0 ? intercepts : undefined,
    replace_info: replacements.length > 0 ? replacements : undefined,
    replaced: item.replaced,
    wiretap_info: wiretaps.length > 0 ? wiretaps : undefined,
    ingest_info: item.ingests?.map(ingestToJson),
  };
}

export function localOnlyToJson({ name, namespace }: LocalOnlyInfo): Readonly<Record<string, unknown>> {
  return { name, namespace, local_only: true };
}

/** What a program on the laptop is given of the pod. */
interface ProgramGets {
  readonly environment: Readonly<Record<string, string>> | undefined;
  readonly volumes: { readonly root: string; readonly mounts: readonly string[] } | undefined;
}

function detailPortToJson(port: InterceptPort | undefined): Readonly<Record<string, unknown>> {
  if (port === undefined) return {};
  return {
    target_host: port.targetHost,
    target_port: port.targetPort,
    service_uid: port.serviceUid,
    service_port_id: port.servicePortName ?? port.servicePort,
    port_id: portIdentifier(port),
    container_port: port.containerPort,
    protocol: port.protocol.toUpperCase(),
  };
}

/** `intercept --detailed-output`. */
export function interceptDetailToJson(
  info: InterceptInfo,
  { environment, volumes }: ProgramGets,
): Readonly<Record<string, unknown>> {
  const { spec } = info;
  return {
    id: info.id,
    name: spec.name,
    disposition: info.state.toUpperCase(),
    message: unlessEmpty(info.message),
    workload_kind: spec.workload.kind,
    ...detailPortToJson(spec.ports[0]),
    pod_ports: spec.ports.map((item) => `${item.targetPort}:${item.containerPort}/${item.protocol.toUpperCase()}`),
    container_name: spec.containerName,
    environment,
    to_pod: podPortsToJson(info.toPod),
    mount: volumes && { local_dir: volumes.root, mounts: volumes.mounts },
    filter_desc: formatFilter(spec.filter) || allConnections,
    filter: spec.filter,
    global: spec.filter === undefined,
    wiretap: isWiretap(info) ? true : undefined,
    replace: isReplacement(info) ? true : undefined,
    replaced_pods: info.replacedPods,
    pod_ip: info.pods[0]?.ip,
    ...previewToJson(info),
  };
}
