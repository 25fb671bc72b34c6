// The cloud server's objects for what people choose.
import { describe, expect, test } from "vitest";
import type { CloudInstallation } from "#wire/cloud-install.ts";
import { cloudInstallation } from "#wire/cloud-install.ts";
import { buildCloud } from "./cloud-manifest.ts";

const plain: CloudInstallation = cloudInstallation.parse({
  namespace: "cloud",
  url: "https://telepresence.example.com",
  ingress: {},
  trustedProxies: "10.0.0.0/8",
  storage: { size: "1Gi" },
  secret: { values: {} },
});

interface PodSpec {
  readonly containers: readonly [
    {
      readonly env: readonly { readonly name: string; readonly value?: string; readonly valueFrom?: object }[];
      readonly securityContext: object;
    },
  ];
  readonly volumes: readonly object[];
}

function build(change: Partial<CloudInstallation> = {}) {
  const objects = buildCloud({ ...plain, ...change }, { image: "registry/telepresence:1" });
  const of = (kind: string) => objects.find((object) => object.kind === kind) as unknown as { readonly spec: object };
  const { template } = of("Deployment").spec as { readonly template: { readonly spec: PodSpec } };
  const pod = template.spec;
  const [container] = pod.containers;
  const env = container.env.map(({ name, value, valueFrom }) => {
    return [name.replace("TELEPRESENCE_CLOUD_", ""), value ?? valueFrom] as const;
  });
  return { objects, kinds: objects.map(({ kind }) => kind), of, pod, env: Object.fromEntries(env) };
}

describe("the objects of the cloud server", () => {
  test("are a volume, a service, a deployment and an ingress", () => {
    const { kinds, env, objects } = build();
    expect(kinds).toEqual(["PersistentVolumeClaim", "Service", "Deployment", "Ingress"]);
    expect(env).toEqual({
      LISTEN: ":8443",
      URL: "https://telepresence.example.com",
      TRUSTED_PROXIES: "10.0.0.0/8",
      DATABASE: "sqlite:/data/cloud.sqlite",
    });
    expect(new Set(objects.map(({ metadata }) => metadata.namespace))).toEqual(new Set(["cloud"]));
  });

  test("fit pod security level restricted", () => {
    const { pod } = build();
    expect(pod).toMatchObject({
      automountServiceAccountToken: false,
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    });
    expect(pod.containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      capabilities: { drop: ["ALL"] },
    });
  });

  test("have no volume with another database, whose address stands in no manifest but the secret", () => {
    const { kinds, env, pod, of } = build({ secret: { values: { database: "postgres://x:pw@db/cloud" } } });
    expect(kinds).toEqual(["Secret", "Service", "Deployment", "Ingress"]);
    expect(env["DATABASE"]).toEqual({ secretKeyRef: { name: "telepresence-cloud", key: "database" } });
    expect(pod.volumes).toEqual([]);
    expect(JSON.stringify(of("Deployment"))).not.toContain("pw");
  });

  test("read a secret that is kept elsewhere, as files", () => {
    const secret = { name: "mine", keys: ["oidc-client-secret", "metrics-token", "extra-ca"] } as const;
    const oidc = { issuer: "https://id.example.com", clientId: "telepresence", adminGroup: "admins" };
    const { kinds, env, pod } = build({ secret: { ...secret, keys: [...secret.keys] }, oidc });
    expect(pod.containers[0].env).toContainEqual({
      name: "NODE_EXTRA_CA_CERTS",
      value: "/etc/telepresence-cloud/extra-ca",
    });
    expect(kinds).not.toContain("Secret");
    expect(env).toMatchObject({
      OIDC_ISSUER: "https://id.example.com",
      OIDC_ADMIN_GROUP: "admins",
      OIDC_CLIENT_SECRET_FILE: "/etc/telepresence-cloud/oidc-client-secret",
      METRICS_TOKEN_FILE: "/etc/telepresence-cloud/metrics-token",
    });
    expect(pod.volumes).toHaveLength(2);
  });

  test("lead previews and the server's own name in, each with its certificate", () => {
    const ingress = { class: "nginx", tlsSecret: "own", previewTlsSecret: "wild" };
    const { of } = build({ previewDomain: "preview.example.net", ingress });
    expect(of("Ingress").spec).toMatchObject({
      ingressClassName: "nginx",
      tls: [
        { hosts: ["telepresence.example.com"], secretName: "own" },
        { hosts: ["*.preview.example.net"], secretName: "wild" },
      ],
      rules: [{ host: "telepresence.example.com" }, { host: "*.preview.example.net" }],
    });
    expect(build({ ingress: undefined }).kinds).not.toContain("Ingress");
  });

  test("forget everything where no storage is wanted", () => {
    const { kinds, pod } = build({ storage: "none" });
    expect(kinds).not.toContain("PersistentVolumeClaim");
    expect(pod.volumes).toEqual([{ name: "data", emptyDir: {} }]);
  });
});
