// Every name, path and address of the test cluster, and the drawing of its network. Pure but for reading the
// environment once; nothing else in testbed/ spells out an address.
//
//   laptop 192.168.77.2 ──┐                                       ┌── pods 10.244.0.0/24 (one veth each, routed)
//                      router .1 ── 172.31.77.0/24 ── node .10 ───┤
//   laptop 2 192.168.78.2 ┘  │                        │           └── services 10.96.0.0/16 (kube-proxy)
//                            │                        └ lets in from outside: TCP 6443 and nothing else
//                            └ DNS for public names, and the "public web" 203.0.113.10:80
//
// With TELEPRESENCE_TESTBED_FAMILY=dual or =ipv6 pods and services have addresses of both families, or of IPv6 alone,
// and the wires carry both. Laptop 1 has IPv4 alone everywhere, laptop 2 what the cluster has.
//
// The router has no route to pods and services: without Telepresence they are unreachable from a laptop.
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { AppError, errorCodes, formatError, toAppError } from "#base/error.ts";

/** Which of the two laptops. */
export type LaptopNumber = 1 | 2;
export const laptopNumbers: readonly LaptopNumber[] = [1, 2];

export const checkoutRoot = dirname(dirname(fileURLToPath(import.meta.url)));

export const families = ["ipv4", "dual", "ipv6"] as const;
/** Of the addresses that pods and services have. */
export type Family = (typeof families)[number];
export const family = readVariable("TELEPRESENCE_TESTBED_FAMILY", parseFamily);

export function parseFamily(name: string | undefined): Family {
  const found = families.find((known) => known === (name === undefined || name === "" ? "ipv4" : name));
  if (found !== undefined) return found;
  throw new AppError("usage", `TELEPRESENCE_TESTBED_FAMILY is "${name}", expected one of ${families.join(", ")}`);
}

/** Read while this file is loaded, where nobody could catch what is wrong with it: one sentence, and the end. */
function readVariable<T>(name: string, parse: (text: string | undefined) => T): T {
  try {
    return parse(process.env[name]);
  } catch (error) {
    const failure = toAppError(error);
    process.stderr.write(`${formatError(failure)}\n`);
    process.exit(errorCodes[failure.code].exit);
  }
}

/** One for each family that the cluster has, its first family first. */
function ofFamily<T>(ipv4: T, ipv6: T): readonly [T, ...T[]] {
  return { ipv4: [ipv4], dual: [ipv4, ipv6], ipv6: [ipv6] }[family] as [T, ...T[]];
}

/** Several clusters can be up side by side: each has an instance name, which every name below ends with. */
export const instanceSuffix =
  readVariable("TELEPRESENCE_TESTBED", parseInstance) + (family === "ipv4" ? "" : `-${family}`);

/** A short word, or nothing for the usual cluster. */
export function parseInstance(name: string | undefined): string {
  if (name === undefined || name === "") return "";
  if (/^[a-z0-9]{1,12}$/.test(name)) return `-${name}`;
  throw new AppError("usage", `TELEPRESENCE_TESTBED is "${name}", and a word of up to 12 small letters is expected`);
}

/** Names the cluster for the lock, its folders and its control group. */
export const clusterName = `telepresence-testbed${instanceSuffix}`;

/** Gone after `down`: sockets, logs, keys, what the laptop sees. */
export const stateDir = `/run/${clusterName}`;
export const logDir = join(stateDir, "log");
export const pkiDir = join(stateDir, "pki");
export const configDir = join(stateDir, "config");
/** Bound into both laptops at the same path: kubeconfigs, homes, bin. */
export const sharedDir = join(stateDir, "laptop");
export const kubeconfigDir = join(sharedDir, "kubeconfig");
export const stateFile = join(stateDir, "state.json");
export const containerdSocket = join(stateDir, "containerd/containerd.sock");

export function laptopDir(laptop: LaptopNumber): string {
  return join(sharedDir, String(laptop));
}
export function binDir(laptop: LaptopNumber): string {
  return join(laptopDir(laptop), "bin");
}
export function homeDir(user: LaptopUser, laptop: LaptopNumber): string {
  return join(laptopDir(laptop), "home", user);
}

/** Survives `down`: what takes minutes to build, by content hash. */
export const cacheDir = join(cacheHome(), "telepresence-testbed");
/** Containers' files; on disk because images are large, and removed by `down`. */
export const dataDir = join(cacheDir, `node${instanceSuffix}`);

function cacheHome(): string {
  const configured = process.env["XDG_CACHE_HOME"];
  if (configured?.startsWith("/") === true) return configured;
  const home = process.env["HOME"];
  return join(home?.startsWith("/") === true ? home : homedir(), ".cache");
}

/** The ordinary user of the laptop: exists only inside it. The number is chosen, far from what systems give out. */
export const ordinaryUser = { name: "dev", uid: 42_077, gid: 42_077 } as const;
export type LaptopUser = typeof ordinaryUser.name | "root";

export const namespaces = {
  node: `telepresence-node${instanceSuffix}`,
  router: `telepresence-router${instanceSuffix}`,
} as const;
export function laptopNamespace(laptop: LaptopNumber): string {
  return `telepresence-laptop${laptop === 1 ? "" : laptop}${instanceSuffix}`;
}
export const allNamespaces: readonly string[] = [
  namespaces.node,
  namespaces.router,
  ...laptopNumbers.map(laptopNamespace),
];
export function namespaceFile(name: string): string {
  return `/run/netns/${name}`;
}

export const nodeName = "node1";
export const nodeAddress = "172.31.77.10";
export const routerNodeAddress = "172.31.77.1";
const nodeAddress6 = "fd31:77::10";
const routerNodeAddress6 = "fd31:77::1";
/** As Kubernetes knows the node. */
export const nodeAddresses = ofFamily(nodeAddress, nodeAddress6);
/** The node's wire has IPv4 in any case: so the API server is there for a laptop without IPv6. */
export const nodeWire: readonly WireAddresses[] = [
  { address: nodeAddress, gateway: routerNodeAddress },
  ...(family === "ipv4" ? [] : [{ address: nodeAddress6, gateway: routerNodeAddress6 }]),
];
/** The resolver that pods are led to: they may have no IPv4. */
export const podUpstream = family === "ipv6" ? routerNodeAddress6 : routerNodeAddress;
export const apiServerPort = 6443;
export const apiServerUrl = `https://${nodeAddress}:${apiServerPort}`;
/** The same API server where the cluster has IPv6. */
export const apiServerUrl6 = `https://[${nodeAddress6}]:${apiServerPort}`;
/** A name for the API server that the public resolver knows. */
export const apiServerName = "api.cluster.example";

export const podRanges = ofFamily("10.244.0.0/16", "fd10:244::/56");
export const nodePodRanges = ofFamily("10.244.0.0/24", "fd10:244::/64");
export const nodePodRange = nodePodRanges[0];
export const serviceRanges = ofFamily("10.96.0.0/16", "fd10:96::/112");
export const apiServiceAddresses = ofFamily("10.96.0.1", "fd10:96::1");
/** Of the cluster's first family. */
export const clusterDnsAddress = ofFamily("10.96.0.10", "fd10:96::a")[0];

/** One end of a wire to the router. */
export interface WireAddresses {
  readonly address: string;
  readonly gateway: string;
}
export function laptopWire(laptop: LaptopNumber): readonly [WireAddresses, ...WireAddresses[]] {
  const subnet = `192.168.${76 + laptop}`;
  const ipv4 = { address: `${subnet}.2`, gateway: `${subnet}.1` };
  const ipv6 = { address: `fd92:168:${76 + laptop}::2`, gateway: `fd92:168:${76 + laptop}::1` };
  return laptop === 1 ? [ipv4] : ofFamily(ipv4, ipv6);
}
/** The first of a laptop's addresses. */
export function laptopAddresses(laptop: LaptopNumber): WireAddresses {
  return laptopWire(laptop)[0];
}

/** What the public resolver answers; every other name does not exist. Documentation ranges (RFC 5737). */
export const publicWebAddress = "203.0.113.10";
export const publicNames: Readonly<Record<string, string>> = {
  "example.com": publicWebAddress,
  "www.example.com": publicWebAddress,
  "example.org": "203.0.113.20",
  [apiServerName]: nodeAddress,
};

/** Images of the cluster, all built here; none is ever pulled. */
export const images = {
  pause: "docker.io/testbed/pause:1",
  coredns: "docker.io/testbed/coredns:1",
  tools: "docker.io/testbed/tools:1",
} as const;

/** Who the cluster knows. `admin` may do everything; the other two are described in manifests/users.yaml. */
export const clusterUsers = {
  admin: { groups: ["system:masters"], namespace: "default" },
  solo: { groups: [], namespace: "solo" },
  small: { groups: [], namespace: "small" },
} as const satisfies Record<string, { groups: readonly string[]; namespace: string }>;
export type ClusterUser = keyof typeof clusterUsers;
/** How a kubeconfig proves its user. */
export type CredentialKind = "certificate" | "token" | "exec";

export function kubeconfigFile(user: ClusterUser, kind: CredentialKind = "certificate"): string {
  return join(kubeconfigDir, kind === "certificate" ? `${user}.yaml` : `${user}-${kind}.yaml`);
}
