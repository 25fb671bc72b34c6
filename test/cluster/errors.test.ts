// Each failure that a user of the real cluster can meet before and while connecting, with its whole text: one sentence
// with subject, value and expectation, and the next step. The help, unknown words, and versions that differ.
import { chmodSync, cpSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { apiServerUrl, checkoutRoot, laptopAddresses, nodeAddress, sharedDir } from "#testbed/layout.ts";
import { figure, nodeProgram, timed } from "./call.ts";
import { apply, kubectl, Lab, until } from "./lab.ts";
import { stage } from "./stage.ts";

const lab = new Lab({});
let untouched: Readonly<Record<string, string>> = {};

stage([lab], "broken");
beforeAll(async () => {
  untouched = await lab.traces();
  await lab.ok("connect"); // a manager is there from now on
  await lab.quit();
});
afterEach(async () => await lab.quit());
afterAll(async () => {
  await lab.ok("uninstall", "--everything");
});

/** The sentence, without the frame that all have. Also: nothing on stdout but what was done before. */
async function fails(args: readonly string[], more: cluster.LaptopOptions = {}, code = 1): Promise<string> {
  const result = await lab.cli(args, more);
  expect(result).toMatchObject({ code });
  expect(result.stderr).toMatch(/^telepresence: error: [^\n]+\n$/);
  return result.stderr.slice("telepresence: error: ".length, -1);
}

describe("the kubeconfig", () => {
  test("has no such context: those that are there are named", async () => {
    const startMs = performance.now();
    expect(await fails(["connect", "--context", "nowhere"])).toBe(
      "context was not found for specified context: nowhere (there are: admin); choose one with --context",
    );
    figure("wrong context named after", performance.now() - startMs);
  });
  test("does not exist, is none, or holds nothing", async () => {
    expect(await fails(["connect", "--kubeconfig", "/no/such/file"])).toBe(
      "kubeconfig /no/such/file does not exist; check --kubeconfig",
    );
    expect(await fails(["connect"], { env: { KUBECONFIG: "/no/such/file" } })).toBe(
      "kubeconfig has no context definition (no file was found); set KUBECONFIG or --kubeconfig to a file that has one",
    );
    await lab.sh("echo 'a: [' > $HOME/bad.yaml");
    expect(await fails(["connect", "--kubeconfig", "bad.yaml"])).toMatch(/^kubeconfig \S+\/bad\.yaml .*YAML/);
  });
});

describe("the cluster", () => {
  test("refuses the connection", async () => {
    const server = `https://${laptopAddresses(1).gateway}:6443`;
    const [said, ms] = await timed(() => fails(["connect", "--server", server]));
    expect(said).toBe(
      `cluster ${server} (context admin) cannot be reached: connection refused; check that the cluster runs, the network, and the context`,
    );
    figure("refused cluster named after", ms);
  });
  // Story: the failed connect's helper, which was still on its way, was taken for the next one's, and ended under it.
  test("can be connected to at once after a connect that failed", async () => {
    const server = `https://${laptopAddresses(1).gateway}:6443`;
    for (let round = 0; round < 8; round += 1) {
      await fails(["connect", "--server", server]);
      expect(await lab.cli(["connect"])).toMatchObject({ code: 0, stderr: "" });
      await lab.quit();
    }
  });
  test("is a black hole: named within seconds", async () => {
    const server = `https://${nodeAddress}:6444`;
    const [said, ms] = await timed(() => fails(["connect", "--server", server]));
    expect(said).toBe(
      `connecting to cluster ${server} (context admin) took longer than 10 s: no answer; check that the cluster runs, the network (a VPN?), and the context`,
    );
    figure("black-holed cluster named after", ms);
    expect(ms).toBeLessThan(20_000);
  });
  test("has a name that does not resolve", async () => {
    expect(await fails(["connect", "--server", "https://no-such.example:6443"])).toContain(
      "cluster https://no-such.example:6443 (context admin) cannot be reached: the name does not resolve",
    );
  });
  test("does not take the credentials", async () => {
    const kubeconfig = cluster.kubeconfigFor("admin", "token");
    expect(await fails(["connect", "--kubeconfig", kubeconfig, "--token", "expired"])).toBe(
      `${apiServerUrl} does not accept the credentials of user "admin"; they may have expired: log in to the cluster again`,
    );
  });
  test("forbids the port-forward: the verb is named with the command that checks it", async () => {
    const looker = { apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "looker" };
    await apply(
      "telepresence",
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "Role",
        metadata: { name: "looker" },
        rules: [
          { apiGroups: ["apps"], resources: ["deployments"], verbs: ["get", "list", "watch"] },
          { apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch"] },
        ],
      },
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "RoleBinding",
        metadata: { name: "looker" },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "looker" },
        subjects: [looker],
      },
    );
    const said = await fails(["connect", "--as", "looker", "--manager-namespace", "telepresence"]);
    expect(said).toMatch(
      /^user "looker" may neither get nor create pods\/portforward in namespace telepresence; check with `kubectl --context admin --as looker auth can-i create pods --subresource=portforward -n telepresence` and ask the cluster's administrator for both verbs$/,
    );
    await kubectl("delete", "role,rolebinding", "looker", "-n", "telepresence");
  });
  test("fails for a script that reads YAML, too", async () => {
    const result = await lab.cli(["connect", "--context", "nowhere", "--output", "yaml"]);
    expect(result).toMatchObject({ code: 1, stderr: "" });
    expect(result.stdout).toMatch(/^cmd: connect\n[\s\S]*^code: context_not_found$/m);
  });
  test("fails for a script: one JSON object, and nothing on stderr", async () => {
    const result = await lab.cli(["connect", "--context", "nowhere", "--output", "json"]);
    expect(result).toMatchObject({ code: 1, stderr: "" });
    expect(JSON.parse(result.stdout)).toMatchObject({
      cmd: "connect",
      code: "context_not_found",
      err: expect.stringContaining("context was not found for specified context: nowhere"),
    });
  });
  test("is explained by --verbose, with the chain of causes", async () => {
    const { code, stderr } = await lab.cli([
      "connect",
      "--verbose",
      "--server",
      `https://${laptopAddresses(1).gateway}:6443`,
    ]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^telepresence: error: cluster [^\n]+\n {2}caused by [^\n]*ECONNREFUSED/);
  });
});

describe("the manager", () => {
  const place = ["--manager-namespace", "broken"];
  async function nothingLeft(): Promise<void> {
    expect(await kubectl("get", "deployments,replicasets,pods", "-n", "broken", "-o", "name")).toBe("");
  }

  test("has an image that cannot be pulled: the real reason in seconds, and nothing left installed", async () => {
    const image = "docker.io/testbed/no-such:1";
    const [said, ms] = await timed(() =>
      fails(["connect", ...place, "--image", image, "--image-pull-policy", "Never"]),
    );
    expect(said).toMatch(
      /^the traffic-manager in namespace broken does not come up: image docker\.io\/testbed\/no-such:1 of container traffic-manager cannot be pulled: .*; kubectl describe pod -n broken -l app\.kubernetes\.io\/name=traffic-manager$/,
    );
    figure("image that cannot be pulled named after", ms);
    expect(ms).toBeLessThan(40_000);
    await nothingLeft();
  });
  test("has a registry that cannot be reached: the same, and a namespace made for it goes too", async () => {
    const image = "registry.invalid/telepresence:1";
    const [said, ms] = await timed(() => fails(["connect", "--manager-namespace", "broken-new", "--image", image]));
    expect(said).toContain(`image ${image} of container traffic-manager cannot be pulled`);
    figure("registry that cannot be reached named after", ms);
    await until("the namespace's end", async () => {
      const { stdout } = await cluster.kubectl(["get", "namespace", "broken-new", "--ignore-not-found", "-o", "name"]);
      return stdout === "";
    });
  });
  test("is refused by a quota: named in seconds, and nothing left installed", async () => {
    await kubectl("create", "quota", "none", "--hard=pods=0", "-n", "broken");
    const [said, ms] = await timed(() => fails(["connect", ...place]));
    await kubectl("delete", "quota", "none", "-n", "broken");
    expect(said).toContain("exceeded quota: none");
    figure("quota named after", ms);
    expect(ms).toBeLessThan(40_000);
    await nothingLeft();
  });
  test("fits into a namespace that enforces PSA restricted", async () => {
    expect(await lab.cli(["connect", "--manager-namespace", "restricted"])).toMatchObject({ code: 0, stderr: "" });
    expect((await lab.sh("curl -sS -m 10 http://hello.default/")).stdout).toContain("Hello from the cluster");
    await lab.quit();
    await lab.ok("uninstall", "--everything", "--manager-namespace", "restricted");
    expect(await kubectl("get", "deployments", "-n", "restricted", "-o", "name")).toBe("");
  });
  test("of somebody else is left alone (trap 56)", async () => {
    await kubectl(
      "create",
      "deployment",
      "traffic-manager",
      "-n",
      "broken",
      "--image=docker.io/testbed/tools:1",
      "--replicas=0",
    );
    expect(await fails(["connect", ...place])).toBe(
      "deployment traffic-manager in namespace broken is not this product's (another Telepresence?); choose another namespace with --manager-namespace, or uninstall the other",
    );
    await kubectl("delete", "deployment", "traffic-manager", "-n", "broken");
  });
  test("of another version is told, and used", async () => {
    await kubectl(
      "label",
      "deployment/traffic-manager",
      "-n",
      "telepresence",
      "--overwrite",
      "app.kubernetes.io/version=0.0.1",
    );
    const { code, stderr } = await lab.cli(["connect"]);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /^Warning: the traffic-manager in namespace telepresence has version 0\.0\.1, this is \S+; [^\n]*\n$/,
    );
    expect((await lab.sh("curl -sS -m 10 http://hello.default/")).stdout).toContain("Hello from the cluster");
  });
});

describe("the laptop", () => {
  test("lets sudo ask for a password, without a terminal: the rule that helps is named", async () => {
    const rule = "/etc/sudoers.d/telepresence-testbed";
    await lab.rootSh(`mv ${rule} /run/rule`);
    const failing = fails(["connect"]);
    const said = await failing.finally(() => lab.rootSh(`mv /run/rule ${rule}`));
    expect(said).toMatch(
      /^sudo needs a password for the root helper, and there is no terminal to ask on; run the command in a terminal, or let sudo run `\S+\/telepresence helper` without a password$/,
    );
    await lab.quit();
    expect(await lab.traces()).toEqual(untouched);
  });
  test("runs a daemon of another version: told, and mended by quit", async () => {
    const older = join(sharedDir, "older");
    const dist = join(checkoutRoot, "dist");
    rmSync(older, { recursive: true, force: true });
    cpSync(join(dist, "daemon"), join(older, "daemon"), { recursive: true });
    for (const part of ["node_modules", "package.json"]) symlinkSync(join(dist, part), join(older, part));
    const program = join(older, "daemon/main.js");
    const { version } = JSON.parse(readFileSync(join(checkoutRoot, "package.json"), "utf8")) as { version: string };
    writeFileSync(program, readFileSync(program, "utf8").replaceAll(`"${version}"`, '"0.0.1"'));
    chmodSync(program, 0o644);
    rmSync(join(older, "daemon/main.cache")); // it was made of the other text
    await using daemon = lab.spawn([nodeProgram, join(older, "daemon/start.js")]);
    await daemon.says("daemon started");
    const { code, stdout, stderr } = await lab.cli(["status"]);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `Warning: the running user daemon is version 0.0.1 and this command is ${version}; run \`telepresence quit\`, then connect again\n`,
    });
    expect(stdout).toMatch(/^ {2}Version +: v0\.0\.1$/m);
    expect((await lab.cli(["quit"])).code).toBe(0);
    expect(await daemon.ends()).toBe(0);
    expect(await lab.cli(["connect"])).toMatchObject({ code: 0 });
    rmSync(older, { recursive: true, force: true });
  });
  test("has a config.yml that is empty, or wrong (trap 57)", async () => {
    const path = "$HOME/.config/telepresence/config.yml";
    try {
      await lab.sh(`mkdir -p $HOME/.config/telepresence; : > ${path}`);
      expect(await lab.cli(["connect"])).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^(Warning: .*\n)*$/),
      });
      await lab.sh(`printf 'cluster:\\n  mappedNamespace: [default]\\n' > ${path}`);
      expect(await fails(["connect"])).toMatch(
        /config\.yml has the unknown key cluster\.mappedNamespace; did you mean cluster\.mappedNamespaces\?$/,
      );
    } finally {
      await lab.sh(`rm -f ${path}`);
    }
  });
});

describe("words", () => {
  const usage = async (...words: readonly string[]): Promise<string> => {
    const { code, stdout, stderr } = await lab.cli(words);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    return stderr;
  };
  test("that are unknown get the nearest that is known, and exit code 2", async () => {
    expect(await usage("conect")).toBe(
      "telepresence: unknown command 'conect', did you mean connect?\nSee 'telepresence --help'.\n",
    );
    expect(await usage("connect", "--kubconfig", "x")).toBe(
      "telepresence connect: unknown option '--kubconfig', did you mean --kubeconfig?\nSee 'telepresence connect --help'.\n",
    );
    expect(await usage("intercept")).toMatch(/^telepresence intercept: missing required argument 'name'\n/);
    expect(await usage("status", "--", "ls")).toMatch(/^telepresence status: takes no command after --\n/);
    expect(await usage("uninstall")).toMatch(/^telepresence uninstall: /);
    expect(await usage("connect", "--output", "xml")).toMatch(
      /^telepresence connect: --output is "xml", expected one of /,
    );
  });
  test("help shows all commands in groups, and each its flags in groups", async () => {
    const all = await lab.ok("help");
    for (const group of ["Session Commands:", "Traffic Commands:", "Other Commands:"]) expect(all).toContain(group);
    for (const command of ["connect", "status", "quit", "list", "intercept", "leave", "version", "uninstall"]) {
      expect(all).toMatch(new RegExp(`^ {2}${command} +\\S`, "m"));
    }
    expect(await lab.ok("--help")).toBe(all);
    const connect = await lab.ok("help", "connect");
    expect(await lab.ok("connect", "--help")).toBe(connect);
    for (const flag of [
      "--context",
      "--kubeconfig",
      "--namespace",
      "--manager-namespace",
      "--mapped-namespaces",
      "--also-proxy",
      "--never-proxy",
      "--as-group",
    ]) {
      expect(connect).toContain(flag);
    }
    for (const group of ["Kubernetes Flags:", "Connection Flags:", "Global Flags:"]) expect(connect).toContain(group);
  });
});
