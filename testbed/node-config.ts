// What each of the node's programs is told: its arguments and its configuration file.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import * as layout from "./layout.ts";
import { pkiFile } from "./pki.ts";

const { configDir, containerdSocket, dataDir } = layout;

/** In the order of starting. */
export const componentNames = [
  "etcd",
  "kube-apiserver",
  "kube-controller-manager",
  "kube-scheduler",
  "containerd",
  "kubelet",
  "kube-proxy",
] as const;
export type ComponentName = (typeof componentNames)[number];

/** Of both families where there are two. */
const anyAddress = layout.family === "ipv4" ? "0.0.0.0" : "::";
const etcdUrl = "http://127.0.0.1:2379";

export const componentArguments: Readonly<Record<ComponentName, () => readonly string[]>> = {
  // Nothing here has to survive a power cut, so etcd neither syncs nor uses a disk.
  etcd: () => [
    "--data-dir=/run/etcd",
    "--unsafe-no-fsync",
    `--listen-client-urls=${etcdUrl}`,
    `--advertise-client-urls=${etcdUrl}`,
    "--listen-peer-urls=http://127.0.0.1:2380",
    "--log-level=warn",
  ],
  "kube-apiserver": () => [
    `--etcd-servers=${etcdUrl}`,
    `--service-cluster-ip-range=${layout.serviceRanges.join(",")}`,
    `--advertise-address=${layout.nodeAddresses[0]}`,
    `--bind-address=${anyAddress}`,
    `--secure-port=${layout.apiServerPort}`,
    `--tls-cert-file=${pkiFile("api.crt")}`,
    `--tls-private-key-file=${pkiFile("api.key")}`,
    `--client-ca-file=${pkiFile("ca.crt")}`,
    `--token-auth-file=${pkiFile("tokens.csv")}`,
    `--service-account-key-file=${pkiFile("sa.pub")}`,
    `--service-account-signing-key-file=${pkiFile("sa.key")}`,
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    "--authorization-mode=Node,RBAC",
    "--enable-admission-plugins=NodeRestriction",
    `--kubelet-client-certificate=${pkiFile("api-to-kubelet.crt")}`,
    `--kubelet-client-key=${pkiFile("api-to-kubelet.key")}`,
    // log, exec and port-forward go to the node's address: its name resolves nowhere
    "--kubelet-preferred-address-types=InternalIP",
    "--allow-privileged=true",
    "--profiling=false",
  ],
  "kube-controller-manager": () => [
    `--kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--authentication-kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--authorization-kubeconfig=${pkiFile("controller-manager.yaml")}`,
    `--service-account-private-key-file=${pkiFile("sa.key")}`,
    `--root-ca-file=${pkiFile("ca.crt")}`,
    `--cluster-cidr=${layout.podRanges.join(",")}`,
    "--allocate-node-cidrs=true",
    "--use-service-account-credentials=true",
    "--leader-elect=false",
    "--kube-api-qps=200",
    "--kube-api-burst=300",
  ],
  "kube-scheduler": () => [
    `--kubeconfig=${pkiFile("scheduler.yaml")}`,
    `--authentication-kubeconfig=${pkiFile("scheduler.yaml")}`,
    `--authorization-kubeconfig=${pkiFile("scheduler.yaml")}`,
    "--leader-elect=false",
  ],
  containerd: () => [`--config=${join(configDir, "containerd.toml")}`, "--log-level=warn"],
  kubelet: () => [
    `--config=${join(configDir, "kubelet.yaml")}`,
    `--kubeconfig=${pkiFile("kubelet.yaml")}`,
    `--hostname-override=${layout.nodeName}`,
    `--node-ip=${layout.nodeAddresses.join(",")}`,
    `--root-dir=${join(dataDir, "kubelet")}`,
  ],
  "kube-proxy": () => [`--config=${join(configDir, "kube-proxy.yaml")}`],
};

/** Writes the configuration files of the components that have one. */
export function writeNodeConfig(): void {
  for (const dir of [configDir, join(configDir, "cni"), dataDir]) mkdirSync(dir, { recursive: true });
  writeFileSync(join(configDir, "containerd.toml"), containerdConfig());
  writeFileSync(join(configDir, "cni/10-testbed.conflist"), JSON.stringify(cniConfig()));
  writeFileSync(join(configDir, "kubelet.yaml"), stringify(kubeletConfig()));
  writeFileSync(join(configDir, "kube-proxy.yaml"), stringify(proxyConfig()));
}

/**
 * restrict_oom_score_adj: without CAP_SYS_RESOURCE runc cannot lower a score and fails. The unprivileged settings let
 * a container that is not root bind port 443 and ping.
 */
function containerdConfig(): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  return `version = 2
root = "${dataDir}/containerd"
state = "/run/containerd-state"
[grpc]
  address = "${containerdSocket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[${cri}]
  sandbox_image = "${layout.images.pause}"
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
[${cri}.cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "${configDir}/cni"
[${cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`;
}

/** One routed veth a pod: every packet between pods passes the node's own rules, with no bridge in between. */
function cniConfig(): object {
  const ipam = {
    type: "host-local",
    dataDir: "/run/cni",
    ranges: layout.nodePodRanges.map((subnet) => [{ subnet }]),
    routes: layout.nodePodRanges.map((range) => ({ dst: range.includes(":") ? "::/0" : "0.0.0.0/0" })),
  };
  return {
    cniVersion: "0.4.0",
    name: "testbed",
    plugins: [
      { type: "ptp", ipMasq: false, ipam },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  };
}

function kubeletConfig(): object {
  return {
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: anyAddress,
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: pkiFile("ca.crt") },
    },
    authorization: { mode: "Webhook" },
    tlsCertFile: pkiFile("kubelet.crt"),
    tlsPrivateKeyFile: pkiFile("kubelet.key"),
    clusterDNS: [layout.clusterDnsAddress],
    clusterDomain: "cluster.local",
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    cgroupDriver: "cgroupfs",
    cgroupRoot: `/${layout.clusterName}`,
    failCgroupV1: false,
    failSwapOn: false,
    oomScoreAdj: 0,
    makeIPTablesUtilChains: false,
    evictionHard: { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
    imageGCHighThresholdPercent: 100,
    maxPods: 200,
    resolvConf: join(configDir, "resolv.conf"),
    podLogsDir: join(dataDir, "pod-logs"),
    volumePluginDir: "/run/volume-plugins",
    serializeImagePulls: false,
    registryPullQPS: 0,
    kubeAPIQPS: 200,
    kubeAPIBurst: 300,
    eventRecordQPS: 0,
    syncFrequency: "10s",
  };
}

function proxyConfig(): object {
  return {
    apiVersion: "kubeproxy.config.k8s.io/v1alpha1",
    kind: "KubeProxyConfiguration",
    mode: "nftables",
    clientConnection: { kubeconfig: pkiFile("proxy.yaml") },
    clusterCIDR: layout.podRanges.join(","),
    hostnameOverride: layout.nodeName,
    nftables: { minSyncPeriod: "100ms" },
    // Limits of the whole machine, which is not ours to tune.
    conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: "0s", tcpCloseWaitTimeout: "0s" },
  };
}
