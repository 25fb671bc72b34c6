import { expect, test } from "vitest";
import { findMesh, findPlugin } from "./mesh.ts";
import type { ObjectMeta, Pod } from "./objects.ts";

const pod = (metadata: ObjectMeta, containers: readonly string[] = [], initContainers: readonly string[] = []): Pod => {
  const named = (names: readonly string[]) => ["app", ...names].map((name) => ({ name }));
  return { metadata, spec: { containers: named(containers), initContainers: named(initContainers) } };
};

test.each([
  ["Istio", "container istio-proxy", pod({}, ["istio-proxy"])],
  ["Istio", "container istio-proxy", pod({}, [], ["istio-proxy"])],
  ["Istio", "annotation sidecar.istio.io/status", pod({ annotations: { "sidecar.istio.io/status": "{}" } })],
  [
    "Istio (ambient)",
    "annotation ambient.istio.io/redirection",
    pod({ annotations: { "ambient.istio.io/redirection": "enabled" } }),
  ],
  [
    "Istio (ambient)",
    "label istio.io/dataplane-mode=ambient",
    pod({ labels: { "istio.io/dataplane-mode": "ambient" } }),
  ],
  ["Linkerd", "container linkerd-proxy", pod({}, ["linkerd-proxy"])],
  ["Consul", "container consul-dataplane", pod({}, ["consul-dataplane"])],
  ["Kuma", "annotation kuma.io/sidecar-injected", pod({ annotations: { "kuma.io/sidecar-injected": "true" } })],
  ["AWS App Mesh", "container proxyinit", pod({}, ["envoy"], ["proxyinit"])],
])("%s is known by %s", (name, evidence, meshed) => {
  expect(findMesh(meshed)).toMatchObject({ name, evidence });
});

test("a pod without a mesh, or out of one, has none", () => {
  expect(findMesh(pod({}))).toBeUndefined();
  expect(findMesh(pod({ labels: { "istio.io/dataplane-mode": "none" } }))).toBeUndefined();
  expect(findMesh(pod({ annotations: { "ambient.istio.io/redirection": "disabled" } }))).toBeUndefined();
  expect(findMesh(pod({ annotations: { "kuma.io/sidecar-injected": "false" } }))).toBeUndefined();
});

test("a mesh that can leave a port alone is told by which annotation", () => {
  expect(findMesh(pod({}, ["istio-proxy"]))?.exclude).toBe("traffic.sidecar.istio.io/excludeInboundPorts");
  expect(findMesh(pod({}, ["linkerd-proxy"]))?.exclude).toBe("config.linkerd.io/skip-inbound-ports");
  expect(findMesh(pod({}, [], ["proxyinit"]))?.exclude).toBeUndefined();
});

test.each([
  ["Cilium", "network.cilium.io/ipv4-pod-cidr"],
  ["Cilium", "io.cilium.network.ipv4-pod-cidr"],
  ["Calico", "projectcalico.org/IPv4Address"],
  ["Flannel", "flannel.alpha.coreos.com/backend-type"],
  ["OVN-Kubernetes", "k8s.ovn.org/node-subnets"],
  [undefined, "example.com/io.cilium.network"],
])("network plugin %s by %s", (plugin, annotation) => {
  expect(findPlugin({ metadata: { annotations: { [annotation]: "x" } } })).toBe(plugin);
});
