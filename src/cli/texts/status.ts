// `status` and `version`, for people and for scripts. Every fact is what the daemon checked when it was asked; what
// was measured earlier says how long ago.
import { formatDuration } from "#base/abort.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { InterceptInfo, InterceptPort } from "#wire/manager-api.ts";
import { formatEndpoint } from "#wire/open.ts";
import { callerPathToJson, describeCallerPath } from "./caller-path.ts";
import { formatFilter } from "./filter.ts";
import { formatIngestLine, ingestToJson } from "./ingest.ts";
import { formatRefused } from "./intercept.ts";
import type { KeyValue } from "./key-values.ts";
import { formatKeyValues } from "./key-values.ts";
import { countOlder } from "./older-connections.ts";
import { describePodPorts, podPortsToJson } from "./pod-ports.ts";
import { previewPairs, previewToJson } from "./preview.ts";
import { proxyToJson } from "./proxy.ts";
import { describeUnread } from "./unread-connections.ts";
import { formatCopies, isWiretap } from "./wiretap.ts";

const names = {
  client: "OSS Client",
  userDaemon: "OSS User Daemon",
  rootDaemon: "OSS Root Daemon",
  manager: "OSS Traffic Manager",
} as const;

const v = (version: string): string => `v${version.replace(/^v/, "")}`;

/** The blocks of 2.20: user daemon, root daemon, traffic manager. `undefined` is a daemon that does not run. */
export function formatStatus(status: DaemonStatus | undefined): readonly string[] {
  if (status === undefined) {
    return [`${names.userDaemon}: Not running`, `${names.rootDaemon}: Not running`, `${names.manager}: Not connected`];
  }
  return [...userDaemonBlock(status), ...rootDaemonBlock(status), ...managerBlock(status)];
}

function userDaemonBlock(status: DaemonStatus): readonly string[] {
  const { connection } = status;
  const { intercepts, wiretaps } = parted(status);
  const pairs: KeyValue[] = [
    { key: "Version", value: v(status.version) },
    { key: "Executable", value: status.executable },
    { key: "Install ID", value: status.installId },
    { key: "Status", value: status.state },
  ];
  if (status.name !== undefined) pairs.push({ key: "Name", value: status.name });
  if (status.problem !== undefined) pairs.push({ key: "Problem", value: status.problem });
  if (connection !== undefined) {
    pairs.push(
      { key: "Kubernetes server", value: connection.server },
      { key: "Kubernetes context", value: connection.context },
      { key: "Namespace", value: connection.namespace },
      { key: "Manager namespace", value: connection.managerNamespace },
    );
    if (connection.mappedNamespaces.length > 0) {
      pairs.push({ key: "Mapped namespaces", value: bracket(connection.mappedNamespaces) });
    }
    if (connection.via !== undefined) pairs.push({ key: "Via", value: connection.via });
    if (connection.proxyVia !== undefined) {
      const below = connection.proxyVia.map(({ subnet, workload }) => `${subnet} by ${workload}`);
      pairs.push({ key: "Proxied via", value: "", below });
    }
    pairs.push(...rootlessPairs(status));
    if (status.programs !== undefined) pairs.push({ key: "Programs", value: `${status.programs} of telepresence run` });
    pairs.push(...linkPairs(status));
    pairs.push({
      key: "Intercepts",
      value: `${intercepts.length} total`,
      below: intercepts.flatMap(interceptLines),
    });
    if (wiretaps.length > 0) {
      pairs.push({ key: "Wiretaps", value: `${wiretaps.length} total`, below: wiretaps.flatMap(interceptLines) });
    }
    if (status.localOnly !== undefined) {
      const below = status.localOnly.map(({ name, namespace }) => `${name}: names of namespace ${namespace}`);
      pairs.push({ key: "Local-only intercepts", value: `${below.length} total`, below });
    }
    if (status.ingests !== undefined) {
      const below = status.ingests.map(formatIngestLine);
      pairs.push({ key: "Ingests", value: `${below.length} total`, below });
    }
  }
  return [`${names.userDaemon}: Running`, ...formatKeyValues(pairs, 2)];
}

/** In place of what the root daemon's block says of a device. */
function rootlessPairs({ connection, routing }: DaemonStatus): readonly KeyValue[] {
  const { proxy, rootless } = connection ?? {};
  if (rootless === undefined) return [];
  const subnets = routing === undefined ? [] : [subnetPair("Subnets", routing.subnets, routing.ageMs)];
  const below = proxy === undefined ? [] : [`SOCKS5: ${proxy.socks}`, `HTTP: ${proxy.http}`];
  const value = proxy === undefined ? "programs of `telepresence run` only" : "proxies, no device";
  return [{ key: "Network", value, below }, ...subnets];
}

/** Wiretaps have a place of their own. */
function parted({ intercepts: all }: DaemonStatus): Readonly<Record<"intercepts" | "wiretaps", InterceptInfo[]>> {
  return { intercepts: all.filter((info) => !isWiretap(info)), wiretaps: all.filter(isWiretap) };
}

function interceptLines(info: InterceptInfo): readonly string[] {
  const below = [...describeCallerPath(info), ...describeUnread(info)];
  const preview = previewPairs(info).flatMap(({ key, value, below: more = [] }) => [`${key}: ${value}`, ...more]);
  return [formatInterceptLine(info), ...[...preview, ...below].map((text) => `  ${text}`)];
}

const count = (times: number): string => (times === 1 ? "once" : `${times} times`);

function describeTransport({ name, protocol, note }: NonNullable<DaemonStatus["transport"]>): string {
  return `${name} (${protocol})${note === undefined ? "" : `; ${note}`}`;
}

/** The link to the manager. */
function linkPairs({ transport, roundTrip, linkChanges }: DaemonStatus): readonly KeyValue[] {
  const pairs: KeyValue[] = [];
  if (transport !== undefined) pairs.push({ key: "Transport", value: describeTransport(transport) });
  if (roundTrip !== undefined) {
    const ms = Number(roundTrip.value.toFixed(2));
    pairs.push({ key: "Round trip", value: `${ms} ms, last answer ${formatDuration(roundTrip.ageMs)} ago` });
  }
  if (linkChanges !== undefined) {
    const { lost, replaced, renewed } = linkChanges;
    const parts = [lost === 0 ? "never lost" : `lost ${count(lost)}`];
    if (renewed > 0) parts.push(`${count(renewed)} with its connections`);
    if (replaced > 0) parts.push(`moved ${count(replaced)}`);
    pairs.push({ key: "Link", value: parts.join(", ") });
  }
  return pairs;
}

function formatInterceptLine(info: InterceptInfo): string {
  const state = info.state === "active" ? "" : ` (${info.state}${info.message === "" ? "" : `: ${info.message}`})`;
  const callers = info.callerAddress?.kept === false ? ", passes connections from the pod's own address" : "";
  const count = countOlder(info);
  const older = count === undefined ? "" : `, ${count} still at the pod`;
  const refused = info.refusedByLaptop === 0 ? "" : `, ${formatRefused(info)}`;
  const copies = info.copies === undefined ? "" : `, ${formatCopies(info.copies)}`;
  const filter = info.spec.filter === undefined ? "" : `, ${formatFilter(info.spec.filter)}`;
  return `${info.spec.name}: ${info.client}, ${formatPorts(info)}${state}${callers}${older}${copies}${refused}${filter}${describePodPorts(info.toPod)}`;
}

function formatPorts({ spec }: InterceptInfo): string {
  return spec.ports.map((port) => `${port.containerPort} -> ${localPlace(port)}`).join(", ");
}

function localPlace({ targetHost, targetPort }: InterceptPort): string {
  return formatEndpoint({ address: targetHost, port: targetPort });
}

function rootDaemonBlock(status: DaemonStatus): readonly string[] {
  const { helper, dns, routing } = status;
  if (helper === undefined) return [`${names.rootDaemon}: Not running`];
  const pairs: KeyValue[] = [
    { key: "Version", value: v(helper.version) },
    { key: "Device", value: helper.device },
  ];
  if (dns !== undefined) pairs.push({ key: "DNS", value: "", below: dnsLines(dns) });
  if (routing !== undefined) {
    pairs.push(
      subnetPair("Subnets", routing.subnets, routing.ageMs),
      subnetPair("Also Proxy", routing.alsoProxy),
      subnetPair("Never Proxy", routing.neverProxy),
      ...(routing.overlap === undefined ? [] : [subnetPair("Allow conflicts for", routing.overlap)]),
    );
    pairs.push(...translatedPairs(routing));
  }
  return [`${names.rootDaemon}: Running`, ...formatKeyValues(pairs, 2)];
}

const cameLate = "came while connected; quit and connect to reach it";
const ipv6IsOff = "of IPv6, which this laptop has switched off";

function translatedPairs({
  translated = [],
  unrouted = [],
  laptopHasIpv6 = true,
  reached = [],
}: NonNullable<DaemonStatus["routing"]>): KeyValue[] {
  const lines = translated.map(
    ({ subnet, seenAs, because }) => `${subnet} as ${seenAs}${because === undefined ? "" : `: ${because}`}`,
  );
  return [
    ...(lines.length === 0 ? [] : [{ key: "Seen elsewhere", value: "", below: lines }]),
    ...(reached.length === 0 ? [] : [{ key: "Reached directly", value: bracket(reached) }]),
    ...(unrouted.length === 0
      ? []
      : [{ key: "Not routed", value: `${bracket(unrouted)} ${laptopHasIpv6 ? cameLate : ipv6IsOff}` }]),
  ];
}

function suffixLine(suffix: string, isOnly = false): KeyValue {
  const which = isOnly ? " only (bare names are not this connection's)" : "";
  return { key: "Names below", value: `${suffix}${which}` };
}

function dnsLines(dns: NonNullable<DaemonStatus["dns"]>): readonly string[] {
  const pairs: KeyValue[] = [
    { key: "Local address", value: dns.localAddress },
    { key: "Hook", value: dns.hook },
    { key: "Upstreams", value: bracket(dns.upstreams) },
    { key: "Cluster domain", value: dns.clusterDomain },
    ...(dns.suffix === undefined ? [] : [suffixLine(dns.suffix, dns.suffixOnly)]),
    { key: "Exclude suffixes", value: bracket(dns.excludeSuffixes) },
    { key: "Include suffixes", value: bracket(dns.includeSuffixes) },
  ];
  if (dns.excludes?.length) pairs.push({ key: "Excludes", value: bracket(dns.excludes) });
  if (dns.mappings?.length) {
    const mappings = dns.mappings.map(({ name, aliasFor }) => `${name}: ${aliasFor}`);
    pairs.push({ key: "Mappings", value: `[${mappings.join(", ")}]` });
  }
  if (dns.lookupTimeoutMs !== undefined) pairs.push({ key: "Timeout", value: `${dns.lookupTimeoutMs / 1000}s` });
  if (dns.error !== undefined) pairs.push({ key: "Error", value: dns.error });
  return formatKeyValues(pairs, 0);
}

const bracket = (items: readonly string[]): string => `[${items.join(" ")}]`;

function subnetPair(key: string, subnets: readonly string[], ageMs?: number): KeyValue {
  const count = `${subnets.length} ${subnets.length === 1 ? "subnet" : "subnets"}`;
  const age = ageMs === undefined ? "" : `, read ${formatDuration(ageMs)} ago`;
  return { key, value: `(${count}${age})`, below: subnets.map((subnet) => `- ${subnet}`) };
}

function managerBlock(status: DaemonStatus): readonly string[] {
  const { manager } = status;
  if (manager === undefined) return [`${names.manager}: Not connected`];
  const pairs = [
    { key: "Version", value: v(manager.version) },
    { key: "Pod", value: manager.podName },
    { key: "Traffic Agent", value: manager.image },
  ];
  return [`${names.manager}: ${status.state}`, ...formatKeyValues(pairs, 2)];
}

/** `status --output json`: the keys of 2.20 and 2.31, and ours beside them. */
export function statusToJson(status: DaemonStatus | undefined): Readonly<Record<string, unknown>> {
  if (status === undefined) {
    return {
      user_daemon: { running: false, name: names.userDaemon },
      root_daemon: { running: false, name: names.rootDaemon },
      traffic_manager: { name: names.manager },
    };
  }
  return {
    user_daemon: userDaemonToJson(status),
    root_daemon: rootDaemonToJson(status),
    traffic_manager: {
      name: names.manager,
      version: status.manager && v(status.manager.version),
      traffic_agent: status.manager?.image,
      pod_name: status.manager?.podName,
    },
  };
}

function userDaemonToJson(status: DaemonStatus): Readonly<Record<string, unknown>> {
  const { connection } = status;
  const { intercepts, wiretaps } = parted(status);
  return {
    running: true,
    name: names.userDaemon,
    version: v(status.version),
    executable: status.executable,
    install_id: status.installId,
    pid: status.pid,
    connection_name: status.name,
    status: status.state,
    error: status.problem,
    kubernetes_server: connection?.server,
    kubernetes_context: connection?.context,
    namespace: connection?.namespace,
    manager_namespace: connection?.managerNamespace,
    via: connection?.via,
    proxy_via: connection?.proxyVia,
    mapped_namespaces: omitEmpty(connection?.mappedNamespaces),
    proxy: connection && proxyToJson(connection),
    programs: status.programs,
    ...linkToJson(status),
    ingests: status.ingests?.map(ingestToJson),
    local_only: status.localOnly,
    intercepts: omitEmpty(intercepts.map(statusEntry)),
    wiretaps: omitEmpty(wiretaps.map(statusEntry)),
  };
}

/** Finer than that the clock is not. */
const toMicroseconds = (ms: number): number => Math.round(ms * 1000) / 1000;

function linkToJson({ transport, roundTrip, linkChanges }: DaemonStatus): Readonly<Record<string, unknown>> {
  return {
    transport: transport?.name,
    transport_protocol: transport?.protocol,
    transport_note: transport?.note,
    round_trip_ms: roundTrip && toMicroseconds(roundTrip.value),
    round_trip_age_ms: roundTrip && toMicroseconds(roundTrip.ageMs),
    link_lost: linkChanges?.lost,
    link_renewed: linkChanges?.renewed,
    link_moved: linkChanges?.replaced,
  };
}

/** An intercept, or a wiretap. */
function statusEntry(info: InterceptInfo): Readonly<Record<string, unknown>> {
  return {
    name: info.spec.name,
    client: info.client,
    state: info.state,
    message: info.message === "" ? undefined : info.message,
    caller_address_kept: info.callerAddress?.kept,
    older_connections: info.olderConnections,
    caller_path: callerPathToJson(info),
    unread_connections: info.unreadConnections,
    refused_by_laptop: info.refusedByLaptop === 0 ? undefined : info.refusedByLaptop,
    ports: info.spec.ports.map((port) => ({
      container_port: port.containerPort,
      protocol: port.protocol.toUpperCase(),
      target_host: port.targetHost,
      target_port: port.targetPort,
    })),
    filter: info.spec.filter,
    to_pod: podPortsToJson(info.toPod),
    copies: info.copies,
    ...previewToJson(info),
  };
}

function rootDaemonToJson(status: DaemonStatus): Readonly<Record<string, unknown>> {
  const { helper, dns, routing } = status;
  if (helper === undefined) return { running: false, name: names.rootDaemon };
  return {
    running: true,
    name: names.rootDaemon,
    version: v(helper.version),
    api_version: 3,
    pid: helper.pid,
    device: helper.device,
    dns: dns && {
      error: dns.error,
      local_address: dns.localAddress,
      hook: dns.hook,
      upstreams: dns.upstreams,
      cluster_domain: dns.clusterDomain,
      suffix: dns.suffix,
      suffix_only: dns.suffixOnly,
      exclude_suffixes: omitEmpty(dns.excludeSuffixes),
      include_suffixes: omitEmpty(dns.includeSuffixes),
      excludes: omitEmpty(dns.excludes),
      mappings: omitEmpty(dns.mappings),
      lookup_timeout: dns.lookupTimeoutMs && dns.lookupTimeoutMs * nanosecondsPerMs,
    },
    ...(routing === undefined ? {} : routingToJson(routing)),
  };
}

function routingToJson(routing: NonNullable<DaemonStatus["routing"]>): Readonly<Record<string, unknown>> {
  return {
    subnets: omitEmpty(routing.subnets),
    subnets_age_ms: routing.ageMs && Math.round(routing.ageMs),
    also_proxy_subnets: omitEmpty(routing.alsoProxy),
    never_proxy_subnets: omitEmpty(routing.neverProxy),
    allow_conflicting_subnets: routing.overlap,
    translated_subnets: routing.translated?.map(({ subnet, seenAs, because }) => ({
      subnet,
      seen_as: seenAs,
      because,
    })),
    unrouted_subnets: routing.unrouted,
    reached_subnets: routing.reached,
  };
}

/** Durations are whole nanoseconds, as Go has them. */
const nanosecondsPerMs = 1_000_000;

const omitEmpty = <T>(items: readonly T[] | undefined): readonly T[] | undefined =>
  items === undefined || items.length === 0 ? undefined : items;

/** `version`: the client and whatever runs. */
export function formatVersion(clientVersion: string, status: DaemonStatus | undefined): readonly string[] {
  const pairs: KeyValue[] = [
    { key: names.client, value: v(clientVersion) },
    { key: names.rootDaemon, value: status?.helper === undefined ? "not running" : v(status.helper.version) },
    { key: names.userDaemon, value: status === undefined ? "not running" : v(status.version) },
    { key: names.manager, value: status?.manager === undefined ? "not connected" : v(status.manager.version) },
  ];
  if (status?.manager !== undefined) pairs.push({ key: "Traffic Agent", value: status.manager.image });
  return formatKeyValues(pairs, 0);
}

/** `version --format json` of 2.31. */
export function versionToJson(
  clientVersion: string,
  status: DaemonStatus | undefined,
): Readonly<Record<string, unknown>> {
  return {
    client: v(clientVersion),
    root_daemon: status?.helper && v(status.helper.version),
    user_daemon: status && v(status.version),
    traffic_manager: status?.manager && v(status.manager.version),
    traffic_agent: status?.manager?.image,
  };
}
