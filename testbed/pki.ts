// Keys and certificates of one cluster's life, made by openssl into the state folder, and the kubeconfigs that carry
// them. Nothing here outlives `down`.
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { run } from "./exec.ts";
import {
  apiServerName,
  apiServerUrl,
  apiServiceAddresses,
  clusterUsers,
  kubeconfigDir,
  kubeconfigFile,
} from "./layout.ts";
import { nodeName, nodeWire, pkiDir, sharedDir, type ClusterUser, type CredentialKind } from "./layout.ts";

interface Identity {
  readonly name: string;
  readonly subject: string;
  readonly altNames?: readonly string[];
}

const apiNames = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
const users = Object.entries(clusterUsers).map(([name, { groups }]) => ({ name: name as ClusterUser, groups }));

const wireAddresses = nodeWire.map(({ address }) => address);
const identities: readonly Identity[] = [
  {
    name: "api",
    subject: "/CN=kube-apiserver",
    altNames: [
      ...[...wireAddresses, "127.0.0.1", "::1", ...apiServiceAddresses].map((address) => `IP:${address}`),
      ...[...apiNames, apiServerName, "localhost"].map((name) => `DNS:${name}`),
    ],
  },
  { name: "api-to-kubelet", subject: "/O=system:masters/CN=kube-apiserver-kubelet-client" },
  {
    name: "kubelet",
    subject: `/O=system:nodes/CN=system:node:${nodeName}`,
    altNames: [...wireAddresses.map((address) => `IP:${address}`), `DNS:${nodeName}`],
  },
  { name: "controller-manager", subject: "/CN=system:kube-controller-manager" },
  { name: "scheduler", subject: "/CN=system:kube-scheduler" },
  { name: "proxy", subject: "/CN=system:kube-proxy" },
  ...users.map(({ name, groups }) => ({
    name,
    subject: `${groups.map((group) => `/O=${group}`).join("")}/CN=${name}`,
  })),
];

const validDays = "365";
const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

export function pkiFile(name: string): string {
  return join(pkiDir, name);
}

export async function createPki(): Promise<void> {
  mkdirSync(pkiDir, { recursive: true, mode: 0o700 });
  const config = pkiFile("openssl.cnf");
  writeFileSync(config, "[req]\ndistinguished_name = none\n[none]\n"); // not the machine's: it adds extensions
  const ca = pair("ca");
  const self = ["req", "-x509", "-config", config, "-days", validDays, ...newKey];
  const caUse = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"];
  await run("openssl", [...self, "-keyout", ca.key, "-out", ca.certificate, "-subj", "/CN=testbed", ...caUse]);
  const signed = [...self, "-CA", ca.certificate, "-CAkey", ca.key];
  const use = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"];
  const create = async ({ name, subject, altNames }: Identity): Promise<void> => {
    const { key, certificate } = pair(name);
    const names = altNames === undefined ? [] : ["-addext", `subjectAltName=${altNames.join(",")}`];
    await run("openssl", [...signed, "-keyout", key, "-out", certificate, "-subj", subject, ...use, ...names]);
  };
  await Promise.all(identities.map(create));
  const serviceAccounts = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(pkiFile("sa.key"), serviceAccounts.privateKey.export({ type: "pkcs8", format: "pem" }), {
    mode: 0o600,
  });
  writeFileSync(pkiFile("sa.pub"), serviceAccounts.publicKey.export({ type: "spki", format: "pem" }));
  const lines = users.map(({ name, groups }) => `${token()},${name},${name},"${groups.join(",")}"`);
  writeFileSync(pkiFile("tokens.csv"), `${lines.join("\n")}\n`, { mode: 0o600 });
}

function pair(name: string): { readonly key: string; readonly certificate: string } {
  return { key: pkiFile(`${name}.key`), certificate: pkiFile(`${name}.crt`) };
}

function token(): string {
  return randomBytes(24).toString("base64url");
}

/** The bearer token that the API server knows a user by. */
export function tokenOf(user: ClusterUser): string {
  const line = readFileSync(pkiFile("tokens.csv"), "utf8")
    .split("\n")
    .find((text) => text.split(",")[1] === user);
  return line?.split(",")[0] ?? "";
}

/** Kubeconfigs for the control plane (beside the keys) and for each user in each way of proving it. */
export function writeKubeconfigs(): void {
  for (const name of ["kubelet", "controller-manager", "scheduler", "proxy"]) {
    const config = kubeconfig(name, "default", certificateOf(name));
    writeFileSync(pkiFile(`${name}.yaml`), stringify(config), { mode: 0o600 });
  }
  mkdirSync(kubeconfigDir, { recursive: true });
  const plugin = writeExecPlugin();
  for (const { name } of users) {
    const credentials: Readonly<Record<CredentialKind, object>> = {
      certificate: certificateOf(name),
      token: { token: tokenOf(name) },
      exec: {
        exec: {
          apiVersion: "client.authentication.k8s.io/v1",
          command: plugin,
          args: [name],
          env: [{ name: "TESTBED_USER", value: name }],
          interactiveMode: "Never",
        },
      },
    };
    for (const [kind, credential] of Object.entries(credentials)) {
      const config = kubeconfig(name, clusterUsers[name].namespace, credential);
      // Readable for the laptop's ordinary user; the keys are worth nothing outside this cluster.
      writeFileSync(kubeconfigFile(name, kind as CredentialKind), stringify(config), { mode: 0o644 });
    }
  }
}

function certificateOf(name: string): object {
  return {
    "client-certificate-data": base64(pkiFile(`${name}.crt`)),
    "client-key-data": base64(pkiFile(`${name}.key`)),
  };
}

function kubeconfig(user: string, namespace: string, credential: object): object {
  const cluster = { server: apiServerUrl, "certificate-authority-data": base64(pkiFile("ca.crt")) };
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "testbed", cluster }],
    users: [{ name: user, user: credential }],
    contexts: [{ name: user, context: { cluster: "testbed", user, namespace } }],
    "current-context": user,
  };
}

/** A credential plugin as cloud providers have them: prints the token of the user it is asked for. */
function writeExecPlugin(): string {
  const file = join(sharedDir, "credential-plugin");
  const cases = users.map(({ name }) => `  ${name}) token=${tokenOf(name)} ;;`);
  writeFileSync(
    file,
    `#!/bin/sh
case "$1" in
${cases.join("\n")}
  *) echo "credential-plugin: no user \\"$1\\"" >&2; exit 1 ;;
esac
echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'"$token"'"}}'
`,
  );
  chmodSync(file, 0o755);
  return file;
}

function base64(file: string): string {
  return readFileSync(file).toString("base64");
}
