// Which addresses are the cluster's: service and pod ranges, found with the rights the user has. The pure halves
// (parsing, covering, merging) work on text CIDRs through ipaddr.js.
import ipaddr from "ipaddr.js";
import { isAppError } from "#base/error.ts";
import type { Kube } from "./client.ts";
import type { KubeNode, Pod, Service } from "./objects.ts";
import { nodes, pods, serviceCidrs, services } from "./objects.ts";
import { orUndefined } from "./refusals.ts";

export interface ClusterSubnets {
  readonly serviceSubnets: readonly string[];
  readonly podSubnets: readonly string[];
  /** How each was found, for status and logs. */
  readonly serviceSource: "ServiceCIDR" | "dry-run Service" | "visible services";
  readonly podSource: "nodes" | "visible pods";
}

/** Chosen: one page. */
const podSample = 500;

/** Finds both. `namespacesVisible` are searched where the whole cluster may not be listed. */
export async function discoverSubnets(
  kube: Kube,
  namespacesVisible: readonly string[],
  signal: AbortSignal,
): Promise<ClusterSubnets> {
  const [service, pod] = await Promise.all([
    discoverServices(kube, namespacesVisible, signal),
    discoverPods(kube, namespacesVisible, signal),
  ]);
  return { ...service, ...pod };
}

async function discoverServices(
  kube: Kube,
  visible: readonly string[],
  signal: AbortSignal,
): Promise<Pick<ClusterSubnets, "serviceSubnets" | "serviceSource">> {
  const listed = await orUndefined(kube.list(serviceCidrs, {}, signal));
  const cidrs = listed?.items.flatMap((item) => item.spec?.cidrs ?? []) ?? [];
  if (cidrs.length > 0) return { serviceSubnets: mergeSubnets(cidrs), serviceSource: "ServiceCIDR" };
  const found = await validRange(kube, visible[0] ?? kube.namespace, signal);
  if (found.length > 0) return { serviceSubnets: mergeSubnets(found), serviceSource: "dry-run Service" };
  const seen = await listVisible<Service>(
    (namespace) => kube.list(services, { namespace }, signal).then((list) => list.items),
    visible,
  );
  return { serviceSubnets: coverServiceIps(seen), serviceSource: "visible services" };
}

/** Asks for an address that no service range has; the refusal names the range. One question for each family. */
async function validRange(kube: Kube, namespace: string, signal: AbortSignal): Promise<readonly string[]> {
  const ask = async (clusterIP: string, family: string): Promise<readonly string[]> => {
    const service = {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: "telepresence-range-probe", namespace },
      spec: { clusterIP, ipFamilies: [family], ports: [{ port: 1 }] },
    };
    try {
      await kube.create(services, service, signal, { dryRun: true });
      return [];
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      return isAppError(error) ? parseValidRange(String(error.fields["serverMessage"] ?? error.message)) : [];
    }
  };
  const found = await Promise.all([ask("1.1.1.1", "IPv4"), ask("1:1::1", "IPv6")]);
  return found.flat();
}

/** The subnet out of `… The range of valid IPs is 10.96.0.0/16`. */
export function parseValidRange(message: string): readonly string[] {
  const found = /range of valid IPs is ([0-9a-fA-F.:]+\/\d+)/.exec(message)?.[1];
  return found === undefined || parseCidr(found) === undefined ? [] : [found];
}

async function discoverPods(
  kube: Kube,
  visible: readonly string[],
  signal: AbortSignal,
): Promise<Pick<ClusterSubnets, "podSubnets" | "podSource">> {
  const nodeList = await orUndefined(kube.list(nodes, {}, signal));
  const cidrs = nodeSubnets(nodeList?.items ?? []);
  // Where the nodes tell, pods are only a check, and a large cluster has very many of them.
  const atLeast = cidrs.length > 0 ? podSample : undefined;
  const podList = await listVisible<Pod>(
    (namespace) => kube.list(pods, { namespace, atLeast }, signal).then((list) => list.items),
    visible,
  );
  // Some network plugins give pods addresses that have nothing to do with the nodes' podCIDRs: believe these only
  // when they hold the pods that can be seen.
  const ips = podIps(podList);
  const outside = ips.filter((ip) => !cidrs.some((cidr) => contains(cidr, ip)));
  if (cidrs.length > 0 && outside.length === 0) return { podSubnets: mergeSubnets(cidrs), podSource: "nodes" };
  if (cidrs.length > 0 && outside.length < ips.length) {
    return { podSubnets: mergeSubnets([...cidrs, ...coverIps(outside)]), podSource: "nodes" };
  }
  return { podSubnets: coverIps(ips), podSource: "visible pods" };
}

async function listVisible<T>(
  list: (namespace: string | undefined) => Promise<readonly T[]>,
  visible: readonly string[],
): Promise<readonly T[]> {
  const all = await orUndefined(list(undefined));
  if (all !== undefined) return all;
  const each = await Promise.all(visible.map((namespace) => orUndefined(list(namespace))));
  return each.flatMap((items) => items ?? []);
}

export function nodeSubnets(items: readonly KubeNode[]): readonly string[] {
  return items.flatMap((node) => node.spec?.podCIDRs ?? (node.spec?.podCIDR === undefined ? [] : [node.spec.podCIDR]));
}

/** Addresses of pods that are on the pod network: host-network pods carry their node's address. */
export function podIps(items: readonly Pod[]): readonly string[] {
  return items
    .filter((pod) => pod.spec.hostNetwork !== true)
    .filter((pod) => pod.status?.phase !== "Succeeded" && pod.status?.phase !== "Failed")
    .flatMap(
      (pod) =>
        pod.status?.podIPs?.map((entry) => entry.ip) ?? (pod.status?.podIP === undefined ? [] : [pod.status.podIP]),
    );
}

/** Ranges that hold these pod addresses: /24 around each (IPv6 /64), joined where they touch. */
export function coverIps(ips: readonly string[]): readonly string[] {
  return mergeSubnets(ips.flatMap((ip) => subnetOf(ip, 24, 64)));
}

/** Service addresses come from one wide range that cannot be seen: /16 (IPv6 /112) around what is visible. */
export function coverServiceIps(items: readonly Service[]): readonly string[] {
  const ips = items.flatMap((service) => service.spec.clusterIPs ?? [service.spec.clusterIP ?? ""]);
  return mergeSubnets(ips.filter((ip) => ip !== "" && ip !== "None").flatMap((ip) => subnetOf(ip, 16, 112)));
}

function subnetOf(ip: string, bits4: number, bits6: number): readonly string[] {
  if (!ipaddr.isValid(ip)) return [];
  const address = ipaddr.parse(ip);
  const bits = address.kind() === "ipv4" ? bits4 : bits6;
  return [`${address.toString()}/${bits}`];
}

interface Range {
  /** Network address as bytes, host bits zero. */
  readonly bytes: readonly number[];
  readonly bits: number;
}

/** Sorted, without duplicates, without subnets inside others, neighbours joined. What is no CIDR is left out. */
export function mergeSubnets(cidrs: readonly string[]): readonly string[] {
  let ranges = cidrs.map(parseCidr).filter((range) => range !== undefined);
  for (let joined = true; joined;) {
    joined = false;
    ranges = dropCovered(ranges);
    for (let index = 0; index + 1 < ranges.length; index++) {
      const parent = joinRanges(ranges[index], ranges[index + 1]);
      if (parent === undefined) continue;
      ranges.splice(index, 2, parent);
      joined = true;
      break;
    }
  }
  return ranges.map(formatRange);
}

function dropCovered(ranges: readonly Range[]): Range[] {
  const sorted = ranges.toSorted(compareRanges);
  const kept: Range[] = [];
  for (const range of sorted) {
    const last = kept.at(-1);
    if (last === undefined || !covers(last, range)) kept.push(range);
  }
  return kept;
}

function compareRanges(a: Range, b: Range): number {
  if (a.bytes.length !== b.bytes.length) return a.bytes.length - b.bytes.length;
  for (const [index, byte] of a.bytes.entries()) {
    const difference = byte - (b.bytes[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return a.bits - b.bits;
}

function covers(outer: Range, inner: Range): boolean {
  if (outer.bytes.length !== inner.bytes.length || outer.bits > inner.bits) return false;
  return maskBytes(inner.bytes, outer.bits).every((byte, index) => byte === outer.bytes[index]);
}

/** The parent of two halves, or undefined. */
function joinRanges(a: Range | undefined, b: Range | undefined): Range | undefined {
  if (a === undefined || b === undefined || a.bits !== b.bits || a.bits === 0) return undefined;
  if (a.bytes.length !== b.bytes.length) return undefined;
  const parent = { bytes: maskBytes(a.bytes, a.bits - 1), bits: a.bits - 1 };
  return covers(parent, b) ? parent : undefined;
}

function maskBytes(bytes: readonly number[], bits: number): readonly number[] {
  return bytes.map((byte, index) => {
    const keep = Math.max(0, Math.min(8, bits - index * 8));
    return byte & (0xff << (8 - keep)) & 0xff;
  });
}

function parseCidr(cidr: string): Range | undefined {
  if (!ipaddr.isValidCIDR(cidr)) return undefined;
  const [address, bits] = ipaddr.parseCIDR(cidr);
  return { bytes: maskBytes(address.toByteArray(), bits), bits };
}

function formatRange(range: Range): string {
  return `${ipaddr.fromByteArray([...range.bytes]).toString()}/${range.bits}`;
}

function contains(cidr: string, ip: string): boolean {
  const outer = parseCidr(cidr);
  const inner = parseCidr(`${ip}/${ip.includes(":") ? 128 : 32}`);
  return outer !== undefined && inner !== undefined && covers(outer, inner);
}
