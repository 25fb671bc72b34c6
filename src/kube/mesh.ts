// Pure: which service mesh, if any, takes a pod's connections before its containers do, and how the pod tells it to
// leave a port alone; and which network plugin a node has. Known by what they themselves write into pods and nodes.
import type { KubeNode, Pod } from "./objects.ts";

export interface Mesh {
  readonly name: string;
  /** What shows it. */
  readonly evidence: string;
  /** Annotation of the pod that lists ports which the mesh leaves alone. */
  readonly exclude?: string;
}

interface Known {
  readonly name: string;
  readonly containers: readonly string[];
  readonly annotations: readonly string[];
  /** `key=value`. */
  readonly labels?: readonly string[];
  readonly exclude?: string;
}

const known: readonly Known[] = [
  {
    name: "Istio (ambient)",
    containers: [],
    annotations: ["ambient.istio.io/redirection"],
    labels: ["istio.io/dataplane-mode=ambient"],
  },
  {
    name: "Istio",
    containers: ["istio-proxy"],
    annotations: ["sidecar.istio.io/status"],
    exclude: "traffic.sidecar.istio.io/excludeInboundPorts",
  },
  {
    name: "Linkerd",
    containers: ["linkerd-proxy"],
    annotations: ["linkerd.io/proxy-version"],
    exclude: "config.linkerd.io/skip-inbound-ports",
  },
  {
    name: "Consul",
    containers: ["consul-dataplane", "consul-connect-envoy-sidecar"],
    annotations: ["consul.hashicorp.com/connect-inject-status"],
    exclude: "consul.hashicorp.com/transparent-proxy-exclude-inbound-ports",
  },
  {
    name: "Kuma",
    containers: ["kuma-sidecar"],
    annotations: ["kuma.io/sidecar-injected"],
    exclude: "traffic.kuma.io/exclude-inbound-ports",
  },
  {
    name: "AWS App Mesh",
    containers: ["proxyinit"],
    annotations: ["appmesh.k8s.aws/mesh"],
  },
  { name: "Open Service Mesh", containers: ["osm-init"], annotations: ["openservicemesh.io/sidecar-injection"] },
];

export function findMesh({ metadata, spec }: Pod): Mesh | undefined {
  const names = new Set([...spec.containers, ...(spec.initContainers ?? [])].map(({ name }) => name));
  for (const { name, containers, annotations, labels = [], exclude } of known) {
    const container = containers.find((item) => names.has(item));
    const annotation = annotations.find((item) => isOn(metadata.annotations?.[item]));
    const label = labels.find((item) => metadata.labels?.[item.split("=")[0] ?? ""] === item.split("=")[1]);
    const evidence =
      (container && `container ${container}`) ??
      (annotation && `annotation ${annotation}`) ??
      (label && `label ${label}`);
    if (evidence !== undefined) return { name, evidence, ...(exclude === undefined ? {} : { exclude }) };
  }
  return undefined;
}

const isOn = (value: string | undefined): boolean => value !== undefined && !["", "false", "disabled"].includes(value);

const plugins: Readonly<Record<string, RegExp>> = {
  Cilium: /^(network\.cilium\.io|io\.cilium\.network)[./]/,
  Calico: /^projectcalico\.org\//,
  Antrea: /^node\.antrea\.io\//,
  "OVN-Kubernetes": /^k8s\.ovn\.org\//,
  Flannel: /^flannel\.alpha\.coreos\.com\//,
};

export function findPlugin({ metadata }: KubeNode): string | undefined {
  const keys = Object.keys(metadata.annotations ?? {});
  return Object.entries(plugins).find(([, pattern]) => keys.some((key) => pattern.test(key)))?.[0];
}
