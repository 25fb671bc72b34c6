// An ingress of the tests' own in the cluster: a pod that routes by Ingress objects (fixtures/ingress.mjs), and certificates for
// it of a private authority, which nobody trusts who was not told.
import { chmodSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "#testbed/exec.ts";
import { apply, kubectl, rolledOut, service, webApp } from "./lab.ts";

const program = readFileSync(join(import.meta.dirname, "fixtures/ingress.mjs"), "utf8");
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];

/** Certificates in a folder. */
export class Authority {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** The folder becomes readable for everybody of the laptop; it has no key that counts anywhere else. */
  static async make(folder: string): Promise<Authority> {
    const authority = new Authority(folder);
    const files = ["-keyout", join(folder, "ca.key"), "-out", authority.file];
    await run("openssl", ["req", "-x509", ...newKey, "-subj", "/CN=private authority", ...files]);
    chmodSync(folder, 0o755);
    return authority;
  }

  /** PEM of the authority itself. */
  get file(): string {
    return join(this.#folder, "ca.crt");
  }

  /** A Secret with a certificate for a host, which may be a wildcard. */
  async putSecret(namespace: string, secret: string, host: string): Promise<void> {
    const [key, cert] = [join(this.#folder, `${secret}.key`), join(this.#folder, `${secret}.crt`)];
    const by = [
      "-CA",
      this.file,
      "-CAkey",
      join(this.#folder, "ca.key"),
      "-addext",
      "basicConstraints=critical,CA:FALSE",
    ];
    const whose = ["-subj", `/CN=${secret}`, "-addext", `subjectAltName=DNS:${host}`];
    await run("openssl", ["req", "-x509", ...newKey, ...by, ...whose, "-keyout", key, "-out", cert]);
    await kubectl("create", "secret", "tls", secret, "-n", namespace, `--cert=${cert}`, `--key=${key}`);
  }
}

export const ingressClass = "small";

/** `names` are services that lead to it. It serves the Ingress objects of its class in all namespaces. */
export async function startIngress(namespace: string, names: readonly string[]): Promise<void> {
  const subject = { kind: "ServiceAccount", name: "default", namespace };
  const [name, apiGroup] = [`small-ingress-${namespace}`, "rbac.authorization.k8s.io"];
  const rules = [
    { apiGroups: ["networking.k8s.io"], resources: ["ingresses"], verbs: ["list"] },
    { apiGroups: [""], resources: ["secrets", "services"], verbs: ["get"] },
  ];
  const pod = webApp({
    name: "ingress",
    servicePorts: [],
    ports: [{ name: "https", containerPort: 8443 }],
    container: {
      command: ["node", "--input-type=module", "-e", program, ingressClass],
      readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 },
    },
    pod: { terminationGracePeriodSeconds: 0 },
  });
  await apply(
    namespace,
    { apiVersion: `${apiGroup}/v1`, kind: "ClusterRole", metadata: { name }, rules },
    {
      apiVersion: `${apiGroup}/v1`,
      kind: "ClusterRoleBinding",
      metadata: { name },
      subjects: [subject],
      roleRef: { apiGroup, kind: "ClusterRole", name },
    },
    ...pod,
    ...names.map((each) => service(each, [{ name: "https", port: 443, targetPort: "https" }], {}, "ingress")),
  );
  await rolledOut(namespace, "deployment/ingress");
}

/** What it has said of each request since it came up. */
export function ingressLog(namespace: string): Promise<string> {
  return kubectl("logs", "-n", namespace, "deployment/ingress");
}

/** What is not in the namespace, and so does not go with it. */
export async function removeIngress(namespace: string): Promise<void> {
  const name = `small-ingress-${namespace}`;
  await kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found");
}
