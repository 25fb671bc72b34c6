import { describe, expect, test } from "vitest";
import { containerMounts, mountFiles, type ContainerMount, type VolumeSources } from "./container-volumes.ts";
import type { ConfigMap, Container, Pod, Secret } from "#kube/objects.ts";

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const objects: Readonly<Record<string, ConfigMap | Secret>> = {
  "ConfigMap settings": {
    metadata: { name: "settings" },
    data: { "a.conf": "a", "run.sh": "#!/bin/sh" },
    binaryData: { raw: Buffer.from([0, 255]).toString("base64") },
  },
  "Secret keys": { metadata: { name: "keys" }, data: { key: base64("hush") } },
};
const container: Container = {
  name: "app",
  volumeMounts: [
    { name: "settings", mountPath: "/etc/app/one.conf", subPath: "/a.conf" },
    { name: "settings", mountPath: "/etc/app" },
    { name: "work", mountPath: "/work", subPathExpr: "$(POD_NAME)/x" },
    { name: "all", mountPath: "/var/run/secrets/all" },
    { name: "keys", mountPath: "/keys" },
  ],
};
const pod: Pod = {
  metadata: { name: "web-1", namespace: "shop", labels: { app: "web" } },
  spec: {
    containers: [container],
    volumes: [
      { name: "settings", configMap: { name: "settings", defaultMode: 0o644 } },
      { name: "work", emptyDir: {} },
      { name: "keys", secret: { secretName: "keys", defaultMode: 0o755, items: [{ key: "key", path: "deep/k" }] } },
      {
        name: "all",
        projected: {
          sources: [
            { serviceAccountToken: { path: "token", audience: "vault", expirationSeconds: 900 } },
            { configMap: { name: "settings", items: [{ key: "run.sh", path: "bin/run", mode: 0o755 }] } },
            { downwardAPI: { items: [{ path: "namespace", fieldRef: { fieldPath: "metadata.namespace" } }] } },
            { secret: { name: "gone", optional: true } },
          ],
        },
      },
    ],
  },
};
const sources: VolumeSources = {
  pod,
  containerName: "app",
  find: (kind, name) => objects[`${kind} ${name}`],
  token: () => "jwt",
};

const mounts = containerMounts(pod, container, { POD_NAME: "web-1" });
const mountOf = (path: string): ContainerMount => mounts.find(({ mountPath }) => mountPath === path)!;
const filesOf = (path: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    [...mountFiles(mountOf(path), sources)].map(([name, { data, executable }]) => [
      name,
      `${data.toString("latin1")}${executable ? " x" : ""}`,
    ]),
  );

describe("containerMounts()", () => {
  test("puts what is inside after what it is in", () => {
    expect(mounts.map(({ mountPath }) => mountPath)).toEqual([
      "/work",
      "/keys",
      "/etc/app",
      "/etc/app/one.conf",
      "/var/run/secrets/all",
    ]);
  });
  test("knows sub-paths, and what only the container has", () => {
    expect(mountOf("/work")).toEqual({ volume: "work", mountPath: "/work", subPath: "web-1/x" });
    expect(mountOf("/etc/app/one.conf").subPath).toBe("a.conf");
  });
});

describe("mountFiles()", () => {
  test("takes texts and bytes of a ConfigMap", () => {
    expect(filesOf("/etc/app")).toEqual({ "a.conf": "a", "run.sh": "#!/bin/sh", raw: "\u0000\u00ff" });
  });
  test("puts keys where the volume wants them; secrets are never executable", () => {
    expect(filesOf("/keys")).toEqual({ "deep/k": "hush" });
  });
  test("joins the sources of a projected volume", () => {
    expect(filesOf("/var/run/secrets/all")).toEqual({ token: "jwt", "bin/run": "#!/bin/sh x", namespace: "shop" });
  });
  test("leaves out what cannot be had", () => {
    const none = { ...sources, find: () => undefined, token: () => undefined };
    expect([...mountFiles(mountOf("/var/run/secrets/all"), none).keys()]).toEqual(["namespace"]);
  });
});
