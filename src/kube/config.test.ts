// Trap 57: several files in KUBECONFIG, and `:` or `/` in context names (EKS and others), broke the original.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ConnectionFlags } from "./config.ts";
import { loadTarget, planTarget } from "./config.ts";
import { parseDurationMs } from "./duration.ts";
import { mergeConfigs } from "./kubeconfig.ts";
import { environmentProxy } from "./proxy.ts";
import type { KubeTarget } from "./target.ts";

const arn = "arn:aws:eks:eu-west-1:123456789012:cluster/dev";
const main = `
apiVersion: v1
kind: Config
current-context: ${arn}
contexts:
- name: ${arn}
  context: {cluster: dev, user: dev-user, namespace: team-a}
- name: kind/kind
  context: {cluster: kind, user: plugin}
clusters:
- name: dev
  cluster:
    server: https://dev.example:6443/
    certificate-authority: ca.pem
    proxy-url: socks5://proxy:1080
    extensions:
    - name: telepresence.io
      extension:
        also-proxy: [10.0.0.0/8]
        never-proxy: [10.1.0.0/16]
        manager: {namespace: tools}
        dns: {include-suffixes: [.lan], exclude-suffixes: [.com], local-ip: 192.0.2.53, mappings: [{name: a, alias-for: b}, c], lookup-timeout: 30s}
- name: kind
  cluster:
    server: 127.0.0.1:6443
    certificate-authority-data: ${Buffer.from("CA").toString("base64")}
    tls-server-name: kubernetes
users:
- name: dev-user
  user: {client-certificate: pki/dev.crt, client-key: /abs/dev.key}
- name: plugin
  user:
    as: root
    as-groups: [a, b]
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./bin/get-token
      args: [--cluster, kind]
      env: [{name: PROFILE, value: dev}]
      installHint: get it from example.com
      interactiveMode: IfAvailable
`;

const plan = (text: string, flags: ConnectionFlags = {}, env: Record<string, string> = {}): KubeTarget =>
  planTarget(mergeConfigs([{ path: "/etc/kube/config", text }]), { flags, cwd: "/work", env }, ["/etc/kube/config"]);

describe("planTarget()", () => {
  test("flattens the current context, with paths absolute to the file's folder", () => {
    expect(plan(main)).toMatchObject({
      contextName: arn,
      clusterName: "dev",
      namespace: "team-a",
      server: "https://dev.example:6443",
      ca: { file: "/etc/kube/ca.pem" },
      insecure: false,
      proxyUrl: "socks5://proxy:1080",
      user: { name: "dev-user", certificate: { file: "/etc/kube/pki/dev.crt" }, key: { file: "/abs/dev.key" } },
    });
  });
  test("reads the extension in both spellings", () => {
    expect(plan(main).extension).toMatchObject({
      managerNamespace: "tools",
      alsoProxy: ["10.0.0.0/8"],
      neverProxy: ["10.1.0.0/16"],
      dns: {
        includeSuffixes: [".lan"],
        excludeSuffixes: [".com"],
        localAddresses: ["192.0.2.53"],
        mappings: [{ name: "a", aliasFor: "b" }],
        lookupTimeoutMs: 30_000,
      },
    });
    const newer = main.replace(
      /extension:\n[^]*?lookup-timeout: 30s\}/,
      'extension: {routing: {alsoProxySubnets: ["1.2.3.0/24"]}, cluster: {defaultManagerNamespace: x}}',
    );
    expect(plan(newer).extension).toMatchObject({ managerNamespace: "x", alsoProxy: ["1.2.3.0/24"] });
  });
  test("takes a context with a slash, a plugin beside the file, impersonation and data", () => {
    const target = plan(main, { context: "kind/kind" });
    expect(target).toMatchObject({
      server: "https://127.0.0.1:6443",
      namespace: "default",
      ca: { pem: "CA" },
      tlsServerName: "kubernetes",
      impersonate: { user: "root", groups: ["a", "b"] },
      user: { exec: { command: "/etc/kube/bin/get-token", args: ["--cluster", "kind"], env: { PROFILE: "dev" } } },
    });
  });
  test("lets every flag win", () => {
    const target = plan(main, {
      cluster: "kind",
      user: "plugin",
      server: "https://other:1",
      token: "t",
      as: "bob",
      asGroup: ["g"],
      namespace: "n",
      certificateAuthority: "my-ca.pem",
      tlsServerName: "s",
      requestTimeout: "1m30s",
    });
    expect(target).toMatchObject({
      server: "https://other:1",
      namespace: "n",
      ca: { file: "/work/my-ca.pem" },
      tlsServerName: "s",
      impersonate: { user: "bob", groups: ["g"] },
      requestTimeoutMs: 90_000,
      user: { token: "t" },
    });
    expect(plan(main, { insecureSkipTlsVerify: true })).toMatchObject({ insecure: true, ca: undefined });
    expect(plan("", { server: "https://bare:6443", token: "t" })).toMatchObject({
      server: "https://bare:6443",
      contextName: "",
    });
  });
  test("refuses in one sentence", () => {
    expect(() => plan(main, { server: "ftp://files" })).toThrow(
      'server "ftp://files" is of ftp, expected https://HOST',
    );
    expect(() => plan(main, { context: "nope" })).toThrow(
      `context was not found for specified context: nope (there are: ${arn}, kind/kind)`,
    );
    expect(() => plan("")).toThrow("kubeconfig has no context definition");
    expect(() => plan(main.replace(/current-context.*/, ""))).toThrow("no current context");
    expect(() => plan("a: [")).toThrow("kubeconfig /etc/kube/config is not valid YAML");
    expect(() => plan("- 1")).toThrow("not a mapping");
    expect(() => plan(main, { user: "x" })).toThrow('user "x" is not in the kubeconfig (there are: dev-user, plugin)');
    expect(() => plan(main, { requestTimeout: "soon" })).toThrow("not a duration");
  });
});

describe("loadTarget()", () => {
  let folder = "";
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "kubeconfig-"));
  });
  afterEach(() => rm(folder, { recursive: true }));

  test("merges the files of KUBECONFIG, the first wins, missing ones are skipped", async () => {
    const first = `contexts: [{name: a, context: {cluster: c, user: u, namespace: first}}]`;
    const second = `
current-context: a
contexts: [{name: a, context: {cluster: c, user: u, namespace: second}}]
clusters: [{name: c, cluster: {server: "https://c", certificate-authority: ca.pem}}]
users: [{name: u, user: {token: t}}]`;
    await writeFile(join(folder, "1"), first);
    await writeFile(join(folder, "2"), second);
    const env = { KUBECONFIG: `${folder}/missing:1:${folder}/2:`, HOME: "/nonexistent" };
    const target = await loadTarget({ flags: {}, cwd: folder, env });
    expect(target).toMatchObject({ namespace: "first", server: "https://c", ca: { file: join(folder, "ca.pem") } });
    expect(target.files).toEqual([join(folder, "1"), join(folder, "2")]);
  });
  test("names a file that was asked for and is not there", async () => {
    await expect(loadTarget({ flags: { kubeconfig: "nope" }, cwd: folder, env: {} })).rejects.toThrow(
      `kubeconfig ${folder}/nope does not exist`,
    );
  });
  test("says so when there is none at all", async () => {
    await expect(loadTarget({ flags: {}, cwd: folder, env: { HOME: folder } })).rejects.toThrow(
      "kubeconfig has no context definition",
    );
  });
});

describe("parseDurationMs()", () => {
  test.each([
    ["30s", 30_000],
    ["1m30s", 90_000],
    ["500ms", 500],
    ["2", 2000],
    ["0", 0],
    ["x", undefined],
    ["", undefined],
  ])("%s", (text, ms) => {
    expect(parseDurationMs(text)).toBe(ms);
  });
});

describe("environmentProxy()", () => {
  const excluded = "10.0.0.0/8,.corp,exact.example, 192.168.1.1:6443,2001:db8::/32,[fd00::1]:6443,FAR.example:443";
  const env = { HTTPS_PROXY: "", https_proxy: "http://p:3128", NO_PROXY: excluded };
  test.each([
    ["https://api.example", "http://p:3128"],
    ["https://10.1.2.3:6443", undefined],
    ["https://api.corp", undefined],
    ["https://corp", "http://p:3128"], // as Go reads it: a dot stands for its subdomains only
    ["https://exact.example", undefined],
    ["https://api.exact.example", undefined],
    ["https://inexact.example", "http://p:3128"],
    ["https://far.example", undefined],
    ["https://far.example:6443", "http://p:3128"],
    ["https://[2001:db8::7]:6443", undefined],
    ["https://[2001:db9::7]:6443", "http://p:3128"],
    ["https://[fd00::1]:6443", undefined],
    ["https://[fd00::1]", "http://p:3128"],
    ["https://192.168.1.1:6443", undefined],
    ["https://192.168.1.1:443", "http://p:3128"],
    ["https://127.0.0.1:6443", undefined],
    ["http://api.example", undefined],
  ])("%s", (server, proxy) => {
    expect(environmentProxy(server, env)).toBe(proxy);
  });
});
