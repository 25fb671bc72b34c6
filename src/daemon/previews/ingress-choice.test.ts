// Regression: the original took a LoadBalancer's port 443 for an ingress that has no TLS for the host, and the preview
// answered with the controller's own certificate.
import { describe, expect, test } from "vitest";
import type { Ingress, Service } from "#kube/objects.ts";
import { chooseIngress } from "./ingress-choice.ts";

const service = (name: string, spec: Partial<Service["spec"]>, labels = {}, namespace = "edge"): Service => ({
  metadata: { name, namespace, labels },
  spec: { type: "ClusterIP", ports: [{ port: 80 }], ...spec },
});
const balanced = (name: string, ports: NonNullable<Service["spec"]["ports"]>, namespace?: string): Service =>
  service(name, { type: "LoadBalancer", ports }, {}, namespace);
const rule = (host: string, tls: boolean): Ingress => ({
  metadata: { name: "web", namespace: "shop" },
  spec: {
    ...(tls ? { tls: [{ hosts: [host] }] } : {}),
    rules: [{ host, http: { paths: [{ backend: { service: { name: "hello" } } }] } }],
  },
});
const choose = (services: readonly Service[], ingresses: readonly Ingress[] = []) =>
  chooseIngress({
    services,
    ingresses,
    own: [{ name: "hello", port: 8080 }],
    namespace: "shop",
    managerNamespace: "telepresence",
  });
const own = { source: "service", host: "hello.shop", port: 8080, tls: false };

describe("the port of a LoadBalancer", () => {
  test.each([
    ["named https", [{ port: 80 }, { port: 443 }, { name: "https", port: 8443 }], 8443, true],
    ["443", [{ name: "http", port: 80 }, { port: 443 }], 443, true],
    ["named http", [{ port: 80 }, { name: "http", port: 8080 }], 8080, false],
    ["80", [{ port: 9000 }, { port: 80 }], 80, false],
    ["any", [{ port: 9000 }], 9000, false],
  ])("%s", (_, ports, port, tls) => {
    expect(choose([balanced("edge", ports)])[0]).toEqual({ source: "load-balancer", host: "edge.edge", port, tls });
  });
});

test("a LoadBalancer comes before a controller's service, and the workload's own service comes last", () => {
  const nginx = service("web-ingress", {}, { "app.kubernetes.io/name": "ingress-nginx" });
  expect(choose([nginx, balanced("gate", [{ port: 80 }])]).map(({ host }) => host)).toEqual([
    "gate.edge",
    "web-ingress.edge",
    "hello.shop",
  ]);
});

test("a controller's LoadBalancer comes before others, whatever their names are", () => {
  const nginx = service("z", { type: "LoadBalancer" }, { "app.kubernetes.io/name": "traefik" });
  expect(choose([balanced("a", [{ port: 80 }]), nginx])[0]?.host).toBe("z.edge");
});

test("an Ingress says the host name and whether TLS is spoken for it", () => {
  const edge = balanced("edge", [{ port: 80 }, { port: 443 }]);
  expect(choose([edge], [rule("shop.example", false)])[0]).toMatchObject({
    port: 80,
    tls: false,
    l5host: "shop.example",
  });
  expect(choose([edge], [rule("shop.example", true)])[0]).toMatchObject({ port: 443, tls: true });
  expect(choose([edge], [rule("*.example", true)])[0]).not.toHaveProperty("l5host");
});

test("our own service, a webhook's and one without an address are no ingress", () => {
  expect(
    choose([
      balanced("traffic-manager-direct", [{ port: 8444 }], "telepresence"),
      service("admission", { type: "LoadBalancer" }),
      service("none", { type: "LoadBalancer", clusterIP: "None" }),
      balanced("udp", [{ port: 53, protocol: "UDP" }]),
    ]),
  ).toEqual([own]);
});

test("without anything there is nothing", () => {
  expect(
    chooseIngress({ services: [], ingresses: [], own: [], namespace: "shop", managerNamespace: "telepresence" }),
  ).toEqual([]);
});
