// Trap 50: `envFrom` that was forgotten, `$(VAR)` that was not replaced, prefixes that were lost.
import { describe, expect, test } from "vitest";
import {
  computeEnvironment,
  expandReferences,
  neededForEnvironment,
  serviceVariables,
} from "./container-environment.ts";
import { fieldValue, resourceValue } from "./downward.ts";
import type { ConfigMap, Container, Pod, Secret, Service } from "#kube/objects.ts";

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const objects: Readonly<Record<string, ConfigMap | Secret>> = {
  "ConfigMap settings": { metadata: { name: "settings" }, data: { MODE: "multi\nline", LEVEL: "1" } },
  "Secret keys": { metadata: { name: "keys" }, data: { token: base64("hüsh $x"), LEVEL: base64("2") } },
};
const find = (kind: string, name: string): ConfigMap | Secret | undefined => objects[`${kind} ${name}`];

function podOf(container: Partial<Container>): { readonly pod: Pod; readonly container: Container } {
  const whole = { name: "app", ...container };
  const pod: Pod = {
    metadata: { name: "web-1", namespace: "shop", uid: "u-1", labels: { app: "web", tier: 'a"b' } },
    spec: { containers: [whole], nodeName: "node-1" },
    status: { podIP: "10.1.2.3", podIPs: [{ ip: "10.1.2.3" }, { ip: "fd00::3" }], hostIP: "192.0.2.1" },
  };
  return { pod, container: whole };
}

const compute = (container: Partial<Container>, services: readonly Service[] = []) =>
  computeEnvironment({ ...podOf(container), services, find });

describe("computeEnvironment()", () => {
  test("takes sources first, the list over them, in order, with prefixes", () => {
    const { values, missing } = compute({
      envFrom: [
        { prefix: "CONF_", configMapRef: { name: "settings" } },
        { configMapRef: { name: "settings" } },
        { secretRef: { name: "keys" } },
      ],
      env: [
        { name: "MODE", value: "own" },
        { name: "EMPTY" },
        { name: "SECRET", valueFrom: { secretKeyRef: { name: "keys", key: "token" } } },
        { name: "FROM_MAP", valueFrom: { configMapKeyRef: { name: "settings", key: "LEVEL" } } },
      ],
    });
    expect({ values, missing }).toEqual({
      values: {
        CONF_MODE: "multi\nline",
        CONF_LEVEL: "1",
        MODE: "own",
        LEVEL: "2",
        token: "hüsh $x",
        EMPTY: "",
        SECRET: "hüsh $x",
        FROM_MAP: "1",
      },
      missing: [],
    });
  });
  test("names what it cannot know, but not what is optional", () => {
    const { values, missing } = compute({
      env: [
        { name: "A", valueFrom: { secretKeyRef: { name: "gone", key: "x" } } },
        { name: "B", valueFrom: { secretKeyRef: { name: "gone", key: "x", optional: true } } },
        { name: "C", valueFrom: { configMapKeyRef: { name: "settings", key: "gone" } } },
        { name: "D", valueFrom: { resourceFieldRef: { resource: "limits.cpu" } } },
      ],
    });
    expect({ values, missing }).toEqual({ values: {}, missing: ["A", "C", "D"] });
  });
  test("replaces references by what stands before, and by services", () => {
    const service: Service = { metadata: { name: "my-db" }, spec: { clusterIP: "10.0.0.9", ports: [{ port: 5432 }] } };
    const { values } = compute(
      {
        env: [
          { name: "LATE", value: "$(BASE)" },
          { name: "BASE", value: "one" },
          { name: "BUILT", value: "$(BASE)/two $$(BASE) $(NOBODY) $(MY_DB_SERVICE_HOST) $BASE" },
        ],
      },
      [service],
    );
    expect(values).toMatchObject({
      LATE: "$(BASE)",
      BUILT: "one/two $(BASE) $(NOBODY) 10.0.0.9 $BASE",
      MY_DB_SERVICE_PORT: "5432",
      MY_DB_PORT: "tcp://10.0.0.9:5432",
    });
  });
});

test.each([
  ["$(A)$(A)", "aa"],
  ["$$$(A)", "$a"],
  ["$$$$(A)", "$$(A)"],
  ["$(A", "$(A"],
  ["$()", "$()"],
  ["100$", "100$"],
])("expandReferences() makes %s into %s", (text, expected) => {
  expect(expandReferences(text, (name) => (name === "A" ? "a" : undefined))).toBe(expected);
});

test("neededForEnvironment() lists every ConfigMap and Secret", () => {
  const { container } = podOf({
    envFrom: [{ configMapRef: { name: "a", optional: true } }, { secretRef: { name: "b" } }],
    env: [{ name: "X", valueFrom: { secretKeyRef: { name: "c", key: "k" } } }],
  });
  expect(neededForEnvironment(container)).toEqual([
    { kind: "ConfigMap", name: "a", optional: true },
    { kind: "Secret", name: "b", optional: false },
    { kind: "Secret", name: "c", optional: false },
  ]);
});

test("serviceVariables() names every port, brackets IPv6, and leaves out headless services", () => {
  const port = { name: "web-ui", port: 80, protocol: "TCP" };
  const services: Service[] = [
    {
      metadata: { name: "six" },
      spec: { clusterIP: "fd00::1", ports: [port, { name: "dns", port: 53, protocol: "UDP" }] },
    },
    { metadata: { name: "headless" }, spec: { clusterIP: "None", ports: [port] } },
    { metadata: { name: "elsewhere" }, spec: { type: "ExternalName", externalName: "x.example" } },
  ];
  expect(serviceVariables(services)).toEqual({
    SIX_SERVICE_HOST: "fd00::1",
    SIX_SERVICE_PORT: "80",
    SIX_SERVICE_PORT_WEB_UI: "80",
    SIX_SERVICE_PORT_DNS: "53",
    SIX_PORT: "tcp://[fd00::1]:80",
    SIX_PORT_80_TCP: "tcp://[fd00::1]:80",
    SIX_PORT_80_TCP_PROTO: "tcp",
    SIX_PORT_80_TCP_PORT: "80",
    SIX_PORT_80_TCP_ADDR: "fd00::1",
    SIX_PORT_53_UDP: "udp://[fd00::1]:53",
    SIX_PORT_53_UDP_PROTO: "udp",
    SIX_PORT_53_UDP_PORT: "53",
    SIX_PORT_53_UDP_ADDR: "fd00::1",
  });
});

test.each([
  ["metadata.name", "web-1"],
  ["metadata.labels['app']", "web"],
  ["metadata.annotations['none']", ""],
  ["metadata.labels", 'app="web"\ntier="a\\"b"'],
  ["spec.nodeName", "node-1"],
  ["spec.serviceAccountName", "default"],
  ["status.podIPs", "10.1.2.3,fd00::3"],
  ["status.hostIPs", "192.0.2.1"],
  ["spec.unknown", undefined],
])("fieldValue() of %s is %s", (path, expected) => {
  expect(fieldValue(podOf({}).pod, path)).toBe(expected);
});

test.each([
  ["limits.cpu", "1", "1"],
  ["limits.cpu", "1m", "250"],
  ["limits.memory", "1Mi", "96"],
  ["limits.memory", undefined, "100000000"],
  ["requests.cpu", undefined, "0"],
  ["limits.ephemeral-storage", undefined, undefined],
])("resourceValue() of %s by %s is %s", (resource, divisor, expected) => {
  const { pod } = podOf({ resources: { limits: { cpu: "250m", memory: "100M" } } });
  expect(resourceValue(pod, "app", { resource, ...(divisor === undefined ? {} : { divisor }) })).toBe(expected);
});
