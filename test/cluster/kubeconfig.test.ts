// Every way in which a kubeconfig leads to a cluster and proves its user, on the real API server: credentials, several
// files, a proxy, impersonation, and the extension that Telepresence reads. Traps 56, 57.
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import * as cluster from "#testbed/cluster.ts";
import {
  apiServerName,
  apiServerUrl,
  laptopAddresses,
  nodeAddress,
  publicWebAddress,
  sharedDir,
} from "#testbed/layout.ts";
import { run } from "#testbed/exec.ts";
import { pkiFile, tokenOf } from "#testbed/pki.ts";
import { parse } from "yaml";
import { nodeProgram } from "./call.ts";
import { field, Lab, prepare } from "./lab.ts";

const lab = new Lab({});
/** Seen by the laptops at the same path. */
const folder = join(sharedDir, "kubeconfig-test");

interface Parts {
  readonly cluster?: object;
  readonly user?: object;
  readonly context?: object;
  readonly name?: string;
}

let caData = "";
let certificate = { "client-certificate-data": "", "client-key-data": "" };

function config({ cluster: more = {}, user, context = {}, name = "made" }: Parts): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "c", cluster: { server: apiServerUrl, "certificate-authority-data": caData, ...more } }],
    users: [{ name: "u", user: user ?? certificate }],
    contexts: [{ name, context: { cluster: "c", user: "u", ...context } }],
    "current-context": name,
  };
}

function write(name: string, content: object | string): string {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? content : stringify(content));
  chmodSync(path, 0o644);
  return path;
}

const using = (path: string): cluster.LaptopOptions => ({ env: { KUBECONFIG: path } });

async function connects(path: string, ...flags: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await lab.cli(["connect", ...flags], using(path));
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect((await lab.sh("curl -sS -m 10 http://hello.default/")).stdout).toContain("Hello from the cluster");
  return stdout;
}

async function fails(path: string, ...flags: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await lab.cli(["connect", ...flags], using(path));
  expect({ code, stdout }).toMatchObject({ code: 1, stdout: expect.not.stringContaining("Connected") });
  expect(stderr).toMatch(/^telepresence: error: [^\n]*\n$/);
  return stderr.slice("telepresence: error: ".length).trimEnd();
}

beforeAll(async () => {
  await prepare();
  await lab.quit();
  mkdirSync(folder, { recursive: true });
  const admin = parse(readFileSync(cluster.kubeconfigFor("admin"), "utf8")) as {
    clusters: { cluster: { "certificate-authority-data": string } }[];
    users: { user: typeof certificate }[];
  };
  caData = admin.clusters[0]?.cluster["certificate-authority-data"] ?? "";
  certificate = admin.users[0]?.user ?? certificate;
  await lab.ok("connect");
  await lab.quit();
});
afterEach(async () => await lab.quit());
afterAll(async () => {
  await lab.ok("uninstall", "--everything");
  await lab.quit();
  rmSync(folder, { recursive: true, force: true });
});

describe("credentials", () => {
  test("a token", async () => {
    await connects(cluster.kubeconfigFor("admin", "token"));
    expect(await lab.ok("status")).not.toContain(tokenOf("admin"));
  });
  test("a credential plugin", async () => {
    await connects(cluster.kubeconfigFor("admin", "exec"));
  });
  test("a token in a file beside the kubeconfig, and one on the command line", async () => {
    write("token", `${tokenOf("admin")}\n`);
    await connects(write("token-file.yaml", config({ user: { tokenFile: "token" } })));
    await lab.quit();
    await connects(write("no-user.yaml", config({ user: {} })), "--token", tokenOf("admin"));
  });
  test("certificates and the cluster's authority in files, their paths relative to the kubeconfig", async () => {
    const decode = (data: string): string => Buffer.from(data, "base64").toString();
    write("ca.crt", decode(caData));
    write("admin.crt", decode(certificate["client-certificate-data"]));
    write("admin.key", decode(certificate["client-key-data"]));
    const cert = { "client-certificate": "admin.crt", "client-key": "admin.key" };
    const file = { "certificate-authority-data": undefined, "certificate-authority": "ca.crt" };
    await connects(write("files.yaml", config({ cluster: file, user: cert })));
    await lab.quit();
    const bare = write("bare.yaml", config({ cluster: { "certificate-authority-data": undefined }, user: {} }));
    const flags = [
      "--certificate-authority",
      "ca.crt",
      "--client-certificate",
      "admin.crt",
      "--client-key",
      "admin.key",
    ];
    const { code, stderr } = await lab.cli(["connect", ...flags], { ...using(bare), cwd: folder });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });
  test("a plugin that fails is named with what it said", async () => {
    const exec = {
      apiVersion: "client.authentication.k8s.io/v1",
      command: join(sharedDir, "credential-plugin"),
      args: ["nobody"],
    };
    const said = await fails(write("plugin.yaml", config({ user: { exec: { ...exec, interactiveMode: "Never" } } })));
    expect(said).toContain('credential-plugin: no user "nobody"');
    const missing = {
      ...exec,
      command: "no-such-plugin",
      installHint: "install it from the shop",
      interactiveMode: "Never",
    };
    const hint = await fails(write("plugin-missing.yaml", config({ user: { exec: missing } })));
    expect(hint).toContain("no-such-plugin");
    expect(hint).toContain("install it from the shop");
  });
  test("a client certificate that has expired", async () => {
    const [key, request] = [join(folder, "late.key"), join(folder, "late.csr")];
    const subject = ["-config", pkiFile("openssl.cnf"), "-subj", "/O=system:masters/CN=late"];
    const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key];
    await run("openssl", ["req", "-new", ...subject, ...newKey, "-out", request]);
    const signer = ["-CA", pkiFile("ca.crt"), "-CAkey", pkiFile("ca.key"), "-set_serial", "2"];
    const { stdout } = await run("openssl", ["x509", "-req", "-in", request, ...signer, "-days", "-1"]);
    const { validToDate } = new X509Certificate(stdout);
    const base64 = (text: string): string => Buffer.from(text).toString("base64");
    const user = {
      "client-certificate-data": base64(stdout),
      "client-key-data": base64(readFileSync(key, "utf8")),
    };
    expect(await fails(write("late.yaml", config({ user })))).toBe(
      `the client certificate of user "u" expired on ${validToDate.toISOString().slice(0, 16).replace("T", " ")} UTC, and ${apiServerUrl} does not accept it; log in to the cluster again, or get a kubeconfig with a new certificate`,
    );
  });
  test("a token that is not accepted", async () => {
    expect(await fails(write("wrong.yaml", config({ user: { token: "nonsense" } })))).toBe(
      `${apiServerUrl} does not accept the credentials of user "u"; they may have expired: log in to the cluster again`,
    );
  });
});

describe("where the cluster is", () => {
  test("several files in KUBECONFIG, one of which is missing (trap 57)", async () => {
    const { clusters, contexts, users } = config({ name: "arn:aws:eks:eu/x@y" }) as Record<string, unknown>;
    const first = write("first.yaml", {
      apiVersion: "v1",
      kind: "Config",
      contexts,
      "current-context": "arn:aws:eks:eu/x@y",
    });
    const second = write("second.yaml", {
      apiVersion: "v1",
      kind: "Config",
      clusters,
      users,
      "current-context": "other",
    });
    const stdout = await connects(`${first}:${join(folder, "missing.yaml")}:${second}`);
    expect(stdout).toContain("Connected to context arn:aws:eks:eu/x@y, namespace default");
  });
  test("a name for the server, and another name in its certificate", async () => {
    await connects(write("named.yaml", config({ cluster: { server: `https://${apiServerName}:6443` } })));
    await lab.quit();
    await connects(write("sni.yaml", config({ cluster: { "tls-server-name": "kubernetes.default" } })));
    await lab.quit();
    const said = await fails(write("wrong-sni.yaml", config({ cluster: { "tls-server-name": "wrong.example" } })));
    expect(said).toMatch(/^TLS with https:\S+ \(context made\) failed: .*wrong\.example/);
  });
  test("a server whose authority is not known, unless that is not to be checked", async () => {
    const unknown = { "certificate-authority-data": undefined };
    expect(await fails(write("unknown.yaml", config({ cluster: unknown })))).toContain("TLS with");
    await connects(write("unknown.yaml", config({ cluster: { ...unknown, "insecure-skip-tls-verify": true } })));
  });
  test("a proxy, which carries everything: requests, watches and port-forwards", async () => {
    // the address of the server leads nowhere but through the proxy
    const server = "https://203.0.113.77:6443";
    const script = `
      const net = require("node:net");
      const server = require("node:http").createServer().listen(18888, "127.0.0.1", () => console.log("proxy ready"));
      server.on("connect", (request, socket, head) => {
        console.log("CONNECT " + request.url);
        const far = net.connect(6443, "${nodeAddress}", () => {
          socket.write("HTTP/1.1 200 Connection established\\r\\n\\r\\n");
          far.write(head); far.pipe(socket).pipe(far);
        });
        far.on("error", () => socket.destroy()); socket.on("error", () => far.destroy());
      });`;
    await using proxy = lab.spawn([nodeProgram, "-e", script]);
    await proxy.says("proxy ready");
    const proxied = { server, "tls-server-name": "kubernetes", "proxy-url": "http://127.0.0.1:18888" };
    expect(await connects(write("proxy.yaml", config({ cluster: proxied })))).toContain(`(${server})`);
    expect(proxy.stdout).toContain("CONNECT 203.0.113.77:6443");
    await lab.quit();
    // the environment's proxy means the same
    const plain = write("proxy-env.yaml", config({ cluster: { server, "tls-server-name": "kubernetes" } }));
    const env = { KUBECONFIG: plain, HTTPS_PROXY: "http://127.0.0.1:18888" };
    expect(await lab.cli(["connect"], { env })).toMatchObject({ code: 0, stderr: "" });
  });
  test("a proxy that does not answer is named", async () => {
    const said = await fails(write("no-proxy.yaml", config({ cluster: { "proxy-url": "http://127.0.0.1:18889" } })));
    expect(said).toContain("127.0.0.1:18889");
  });
});

describe("impersonation", () => {
  test("is part of every request: as a user who may not, the user is named", async () => {
    const said = await fails(
      cluster.kubeconfigFor("admin"),
      "--as",
      "small",
      "-n",
      "small",
      "--manager-namespace",
      "nowhere",
    );
    expect(said).toContain('user "small" may not create deployments.apps in namespace nowhere');
    expect(said).toContain("--as small");
  });
  test("with groups that may, it works", async () => {
    await connects(
      cluster.kubeconfigFor("admin"),
      "--as",
      "somebody",
      "--as-group",
      "system:masters",
      "--as-group",
      "more",
    );
  });
  test("that is forbidden is named", async () => {
    const said = await fails(cluster.kubeconfigFor("solo"), "--as", "admin");
    expect(said).toMatch(/user "solo" may not impersonate users/);
    expect(said).toContain("auth can-i impersonate users");
  });
});

describe("the telepresence.io extension", () => {
  const extended = (extension: object): object =>
    config({ cluster: { extensions: [{ name: "telepresence.io", extension }] } });

  test("sets the manager's namespace, routes and names", async () => {
    const file = write(
      "extended.yaml",
      extended({
        manager: { namespace: "extension-manager" },
        "also-proxy": [`${publicWebAddress}/32`],
        routing: { neverProxySubnets: ["10.244.0.128/25"] },
        dns: {
          "include-suffixes": [".corp.example"],
          mappings: [{ name: "api.corp", aliasFor: "kubernetes.default.svc" }],
        },
      }),
    );
    expect(await connects(file)).toContain("Installed the traffic-manager in namespace extension-manager");
    expect(await field("extension-manager", "deployment/traffic-manager", ".metadata.name")).toBe("traffic-manager");
    expect((await lab.sh(`ip route get ${publicWebAddress}`)).stdout).toMatch(/dev tel/);
    expect((await lab.sh("ip route get 10.244.0.200")).stdout).toContain("dev eth0");
    expect((await lab.sh("getent ahostsv4 api.corp")).stdout).toMatch(/^10\.96\.0\.1 /);
    await lab.sh("getent hosts host.corp.example");
    const queries = JSON.parse(await lab.rootSh(`curl -sS -m 10 http://${publicWebAddress}/queries`)) as {
      name: string;
      from: string;
    }[];
    const asked = queries.filter(({ name }) => name === "host.corp.example").map(({ from }) => from);
    expect(asked.length).toBeGreaterThan(0);
    expect(asked).not.toContain(laptopAddresses(1).address);
    // the flag wins
    await lab.quit();
    await connects(file, "--manager-namespace", "telepresence");
    await lab.quit();
    expect((await lab.cli(["uninstall", "--everything"], using(file))).code).toBe(0);
  });
});
