// Pure: what the cluster's NetworkPolicies (networking.k8s.io/v1) say of a connection between two pods. Whether anybody
// enforces them cannot be seen in the API, so this can only tell what they would cut.
// Invariant: `no` is certain. What depends on labels that may not be read, or on an ipBlock that holds a pod's address
// (plugins differ on that), is `unknown`.
import { BlockList, isIP } from "node:net";
import type { KubeObject, LabelSelector, Resource } from "./objects.ts";

export interface PolicyPeer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

export interface PolicyPort {
  readonly protocol?: string;
  readonly port?: number | string;
  readonly endPort?: number;
}

export interface PolicyRule {
  readonly ports?: readonly PolicyPort[];
  readonly from?: readonly PolicyPeer[];
  readonly to?: readonly PolicyPeer[];
}

export interface NetworkPolicy extends KubeObject {
  readonly spec?: {
    readonly podSelector?: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly PolicyRule[];
    readonly egress?: readonly PolicyRule[];
  };
}

export const networkPolicies: Resource<NetworkPolicy> = {
  group: "networking.k8s.io",
  version: "v1",
  plural: "networkpolicies",
  kind: "NetworkPolicy",
  namespaced: true,
};

export type Labels = Readonly<Record<string, string>>;

/** A pod at one end of a connection. */
export interface PolicyPod {
  readonly namespace: string;
  /** Undefined when they may not be read; the name's own label is known all the same. */
  readonly namespaceLabels: Labels | undefined;
  readonly labels: Labels;
  readonly ips: readonly string[];
  /** Ports of its containers that have a name. */
  readonly namedPorts: readonly { readonly name: string; readonly port: number; readonly protocol: string }[];
}

export interface PolicyFlow {
  readonly from: PolicyPod;
  readonly to: PolicyPod;
  readonly port: number;
  readonly protocol: "TCP" | "UDP" | "SCTP";
}

export type Direction = "Ingress" | "Egress";
type Answer = "yes" | "no" | "unknown";

/** Label that every namespace has. */
const namespaceNameLabel = "kubernetes.io/metadata.name";

/** The policies that together let the connection not through; none when that is not certain. */
export function findCut(
  policies: readonly NetworkPolicy[],
  direction: Direction,
  flow: PolicyFlow,
): readonly NetworkPolicy[] {
  const pod = direction === "Ingress" ? flow.to : flow.from;
  const governing = policies.filter((policy) => governs(policy, direction, pod));
  const rules = governing.flatMap((policy) => rulesOf(policy, direction).map((rule) => ({ policy, rule })));
  return rules.every(({ policy, rule }) => admits(rule, direction, policy, flow) === "no") ? governing : [];
}

function admits(rule: PolicyRule, direction: Direction, { metadata }: NetworkPolicy, flow: PolicyFlow): Answer {
  const { from, to, port: number, protocol } = flow;
  if (!admitsPort(rule, { number, protocol, pod: to })) return "no";
  const inward = direction === "Ingress";
  return admitsPeer(inward ? rule.from : rule.to, inward ? from : to, metadata.namespace ?? "");
}

/** Policies whose callers of `port` would not get through to `instead`, which takes the port's place and its names. */
export function findLost(
  policies: readonly NetworkPolicy[],
  pod: PolicyPod,
  { port, instead }: { readonly port: number; readonly instead: number },
): readonly NetworkPolicy[] {
  const renamed = pod.namedPorts.map((named) =>
    named.port === port && named.protocol === "TCP" ? { ...named, port: instead } : named,
  );
  const rules = policies
    .filter((policy) => governs(policy, "Ingress", pod))
    .flatMap((policy) => rulesOf(policy, "Ingress").map((rule) => ({ policy, rule })));
  const admitting = (number: number, namedPorts: PolicyPod["namedPorts"]): typeof rules =>
    rules.filter(({ rule }) => admitsPort(rule, { number, protocol: "TCP", pod: { ...pod, namedPorts } }));
  const kept = new Set(admitting(instead, renamed).map(({ rule }) => peersText(rule)));
  if (kept.has(everybody)) return [];
  const lost = admitting(port, pod.namedPorts).filter(({ rule }) => !kept.has(peersText(rule)));
  return [...new Set(lost.map(({ policy }) => policy))];
}

const everybody = "[]";
const peersText = ({ from = [] }: PolicyRule): string => JSON.stringify(from);

/** Whether the policy isolates the pod in this direction. */
export function governs({ metadata, spec = {} }: NetworkPolicy, direction: Direction, pod: PolicyPod): boolean {
  const types = spec.policyTypes ?? (spec.egress === undefined ? ["Ingress"] : ["Ingress", "Egress"]);
  const selector = spec.podSelector ?? {};
  return metadata.namespace === pod.namespace && types.includes(direction) && matchesSelector(selector, pod.labels);
}

function rulesOf({ spec = {} }: NetworkPolicy, direction: Direction): readonly PolicyRule[] {
  return (direction === "Ingress" ? spec.ingress : spec.egress) ?? [];
}

/** None named means all. */
function admitsPort(
  { ports = [] }: PolicyRule,
  wanted: { readonly number: number; readonly protocol: string; readonly pod: PolicyPod },
): boolean {
  const { number, protocol, pod } = wanted;
  return (
    ports.length === 0 ||
    ports.some((item) => {
      if ((item.protocol ?? "TCP") !== protocol) return false;
      if (item.port === undefined) return true;
      if (typeof item.port === "number") return number >= item.port && number <= (item.endPort ?? item.port);
      return pod.namedPorts.some(
        (named) => named.name === item.port && named.port === number && named.protocol === protocol,
      );
    })
  );
}

/** None named means everybody. */
function admitsPeer(peers: readonly PolicyPeer[] = [], pod: PolicyPod, home: string): Answer {
  if (peers.length === 0) return "yes";
  const answers = peers.map((peer) => isPeer(peer, pod, home));
  if (answers.includes("yes")) return "yes";
  return answers.includes("unknown") ? "unknown" : "no";
}

function isPeer({ ipBlock, namespaceSelector, podSelector }: PolicyPeer, pod: PolicyPod, home: string): Answer {
  if (ipBlock !== undefined) return mayHold(ipBlock, pod.ips) ? "unknown" : "no";
  if (podSelector !== undefined && !matchesSelector(podSelector, pod.labels)) return "no";
  if (namespaceSelector === undefined) return pod.namespace === home ? "yes" : "no";
  return isInNamespace(namespaceSelector, pod);
}

function isInNamespace(selector: LabelSelector, { namespace, namespaceLabels }: PolicyPod): Answer {
  const own = { [namespaceNameLabel]: namespace };
  if (namespaceLabels !== undefined) return matchesSelector(selector, { ...own, ...namespaceLabels }) ? "yes" : "no";
  const { matchLabels = {}, matchExpressions = [] } = selector;
  const wanted = [
    ...Object.entries(matchLabels).map(([key, value]) => ({ key, operator: "In", values: [value] })),
    ...matchExpressions,
  ];
  const known = wanted.filter(({ key }) => key === namespaceNameLabel);
  if (!matchesSelector({ matchExpressions: known }, own)) return "no";
  return known.length === wanted.length ? "yes" : "unknown";
}

/** An address that is not known may be anywhere. */
function mayHold(
  { cidr, except = [] }: { readonly cidr: string; readonly except?: readonly string[] },
  ips: readonly string[],
): boolean {
  if (ips.length === 0) return true;
  return ips.some((ip) => isWithin(ip, cidr) && !except.some((range) => isWithin(ip, range)));
}

function isWithin(ip: string, cidr: string): boolean {
  const [address = "", prefix] = cidr.split("/");
  const family = isIP(address) === 6 ? "ipv6" : "ipv4";
  const list = new BlockList();
  try {
    list.addSubnet(address, Number(prefix), family);
  } catch {
    return true; // not understood, so nothing is certain
  }
  return list.check(ip, isIP(ip) === 6 ? "ipv6" : "ipv4");
}

/** A selector over a set of labels; an empty one selects everything. */
export function matchesSelector({ matchLabels = {}, matchExpressions = [] }: LabelSelector, labels: Labels): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key];
      if (operator === "In") return value !== undefined && values.includes(value);
      if (operator === "NotIn") return value === undefined || !values.includes(value);
      return operator === "Exists" ? value !== undefined : operator === "DoesNotExist" && value === undefined;
    })
  );
}
