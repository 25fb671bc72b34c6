// Story: a key that was copied into a Secret of ours stayed there when the application's own was renewed, and callers were
// shown a certificate of last month (trap 47, "bad certificate").
import { describe, expect, test } from "vitest";
import type { Pod, PodSpec, PodTemplate, Service } from "#kube/objects.ts";
import { readContainerConfig } from "./agent.ts";
import { annotatedCertificate, certificateVolumes } from "./certificate-volumes.ts";
import { planEphemeral } from "./ephemeral.ts";

const mounts = (...names: readonly string[]): { readonly name: string; readonly mountPath: string }[] =>
  names.map((name) => ({ name, mountPath: `/etc/${name}` }));
const spec = {
  containers: [
    {
      name: "web",
      ports: [{ name: "https", containerPort: 8443 }],
      volumeMounts: mounts("web-tls", "config", "token"),
    },
    {
      name: "proxy",
      volumeMounts: [{ name: "proxy-tls", mountPath: "/tls/key", subPath: "tls.key" }, ...mounts("csi")],
    },
  ],
  volumes: [
    { name: "web-tls", secret: { secretName: "web-certificate" } },
    { name: "config", configMap: { name: "web" } },
    { name: "token", projected: { sources: [{ serviceAccountToken: { path: "token" } }] } },
    { name: "proxy-tls", projected: { sources: [{ secret: { name: "proxy-certificate" } }] } },
    { name: "csi", csi: { driver: "csi.cert-manager.io" } },
    { name: "unused", secret: { secretName: "other" } },
    { name: "cache", emptyDir: {} },
  ],
} as unknown as PodSpec;
const service: Service = {
  metadata: { name: "web", namespace: "shop" },
  spec: { selector: { app: "web" }, ports: [{ name: "https", port: 443, targetPort: "https" }] },
};

describe("the volumes that may hold a certificate", () => {
  test("are the Secrets and drivers' volumes that the application's containers mount, whole, and no token", () => {
    expect(certificateVolumes(spec)).toEqual([
      { name: "web-tls", secret: "web-certificate", path: "/tel_app_tls/web-tls" },
      { name: "proxy-tls", secret: "proxy-certificate", path: "/tel_app_tls/proxy-tls" },
      { name: "csi", path: "/tel_app_tls/csi" },
    ]);
  });

  test("are mounted in the agent, read-only, and named in its configuration with the port that speaks TLS", () => {
    const pod = { metadata: { name: "web-1", labels: { app: "web" } }, spec } as unknown as Pod;
    const workload = { kind: "Deployment", name: "web", namespace: "shop" } as const;
    const agent = planEphemeral(pod, { workload, services: [service], image: { image: "agent" } });
    expect(agent.volumeMounts).toEqual(
      expect.arrayContaining(
        ["web-tls", "proxy-tls", "csi"].map((name) => ({ name, mountPath: `/tel_app_tls/${name}`, readOnly: true })),
      ),
    );
    const config = readContainerConfig(agent);
    expect(config?.ports).toMatchObject([{ containerPort: 8443, tls: true, http: false }]);
    expect(config?.certificateVolumes?.map(({ name }) => name)).toEqual(["web-tls", "proxy-tls", "csi"]);
  });
});

test("annotations name a certificate, ours before the original's, one for a port before one for all", () => {
  const template = (annotations: Record<string, string>): PodTemplate => ({ metadata: { annotations }, spec });
  const older = { "getambassador.io/inject-terminating-tls-secret": "older" };
  const own = { "telepresence.io/tls-certificate": "web-tls:server.pem,server.key" };
  const ofPort = { "telepresence.io/downstream-tls-secret.8443": "of-port" };
  expect(annotatedCertificate(template(older), 8443)?.choice).toEqual({ volume: "older" });
  expect(annotatedCertificate(template({ ...older, ...own }), 8443)?.choice).toEqual({
    volume: "web-tls",
    certificateFile: "server.pem",
    keyFile: "server.key",
  });
  expect(annotatedCertificate(template({ ...own, ...ofPort }), 8443)?.choice).toEqual({ volume: "of-port" });
  expect(annotatedCertificate(template(ofPort), 8080)).toBeUndefined();
  expect(annotatedCertificate(template({ "telepresence.io/tls-certificate": "a b" }), 1)).toMatchObject({
    text: "a b",
    choice: undefined,
  });
});
