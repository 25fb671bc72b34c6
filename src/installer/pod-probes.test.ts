import { describe, expect, test } from "vitest";
import type { Container, Probe } from "#kube/objects.ts";
import { findProbes } from "./pod-probes.ts";
import { planTakeover } from "./port-takeover.ts";

const ports = [{ name: "web", containerPort: 8080 }];
const podOf = (...containers: readonly Partial<Container>[]) => ({
  containers: containers.map((container, index) => ({ name: `c${index}`, ports, ...container })),
});

describe("findProbes()", () => {
  test.each<[Probe, unknown]>([
    [{ httpGet: { port: 8080, path: "/ready" } }, { containerPort: 8080, by: "http", path: "/ready" }],
    [{ httpGet: { port: "web" } }, { containerPort: 8080, by: "http", path: "/" }],
    [{ httpGet: { port: 1, scheme: "HTTPS" } }, { containerPort: 1, by: "https", path: "/" }],
    [{ tcpSocket: { port: "web" } }, { containerPort: 8080, by: "tcp" }],
    [{ grpc: { port: 9000 } }, { containerPort: 9000, by: "grpc" }],
  ])("of %j is %j", (readinessProbe, expected) => {
    expect(findProbes(podOf({ readinessProbe }))).toEqual([expected]);
  });

  test.each<Probe>([
    { httpGet: { port: 8080, host: "10.0.0.1" } },
    { tcpSocket: { port: 8080, host: "other" } },
    { httpGet: { port: "nobody-has-it" } },
    {},
  ])("of %j is none of the agent's", (livenessProbe) => {
    expect(findProbes(podOf({ livenessProbe }))).toEqual([]);
  });

  test("names each once, of all containers and of sidecars, in the container whose port it names", () => {
    const probe = { httpGet: { port: "web", path: "/healthz" } };
    const found = findProbes({
      ...podOf(
        { livenessProbe: probe, readinessProbe: probe, startupProbe: probe },
        { ports: [{ name: "web", containerPort: 9090 }], readinessProbe: probe },
      ),
      initContainers: [
        { name: "sidecar", restartPolicy: "Always", livenessProbe: { tcpSocket: { port: 7000 } } },
        { name: "before", livenessProbe: { tcpSocket: { port: 7001 } } },
      ],
    });
    expect(found).toEqual([
      { containerPort: 8080, by: "http", path: "/healthz" },
      { containerPort: 9090, by: "http", path: "/healthz" },
      { containerPort: 7000, by: "tcp" },
    ]);
  });
});

// A port of which the services said nothing had a stream to the laptop opened for each probe, before its first byte:
// where the laptop's link was black, the application's answer came too late, and the pod was not ready any more.
describe("what a port speaks, where services say nothing,", () => {
  const portOf = (name: string, readinessProbe: Probe) => {
    const service = {
      metadata: { name: "s", namespace: "n" },
      spec: { ports: [{ name, port: 80, targetPort: 8080 }] },
    };
    const [port] = planTakeover(podOf({ readinessProbe }), {
      services: [service],
      asked: [],
      what: "it",
      by: "redirect",
    }).ports;
    return { http: port?.http, tls: port?.tls };
  };
  test.each<[string, Probe, { http?: boolean; tls?: boolean }]>([
    ["main", { httpGet: { port: 8080 } }, { http: true }],
    ["main", { grpc: { port: 8080 } }, { http: true }],
    ["main", { httpGet: { port: 8080, scheme: "HTTPS" } }, { tls: true }],
    ["main", { tcpSocket: { port: 8080 } }, {}],
    ["main", { httpGet: { port: 8081 } }, {}],
    ["http", { httpGet: { port: 8080, scheme: "HTTPS" } }, { http: true }],
    ["https", { httpGet: { port: 8080 } }, { http: false, tls: true }],
  ])("%s, is told by its probe %j", (name, probe, expected) => {
    expect(portOf(name, probe)).toEqual({ http: undefined, tls: undefined, ...expected });
  });
});
