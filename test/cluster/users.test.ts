// The whole way as other people: rights in one namespace only, a small Role that lacks things, and root of the laptop.
// It works, or the missing verb is named with the command that checks it.
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, fixture, kubectl, rolledOut, webApp, report, until } from "./lab.ts";
import { stage } from "./stage.ts";

const manager = "it-manager";
const namespace = "it-users";
const admin = new Lab({ managerNamespace: manager });
const small = new Lab({ managerNamespace: manager, clusterUser: "small" });
const root = new Lab({ managerNamespace: manager, user: "root" });

stage([admin, root], namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "web" }), ...webApp({ name: "bare" }));
  await rolledOut(namespace, "deployment/web", "deployment/bare");
  // an administrator has put manager and agent there
  await admin.ok("intercept", "web", "--port", "18600", "-n", namespace);
  await admin.quit();
  await cluster.grantSmall(namespace);
  await cluster.grantSmall(manager);
});

afterEach(async () => await Promise.all([admin.quit(), root.quit()]));

describe("solo, who may do everything in one namespace", () => {
  // with every kind of credential; uninstall.test.ts goes the whole way by certificate
  for (const kind of ["token", "exec"] as const) {
    test(`connects, intercepts and leaves with a kubeconfig by ${kind}`, async () => {
      await apply("solo", ...webApp({ name: "web" }));
      await rolledOut("solo", "deployment/web");
      const solo = new Lab({ clusterUser: "solo" });
      const env = { KUBECONFIG: cluster.kubeconfigFor("solo", kind) };
      await using server = solo.spawn(fixture("laptop-server.mjs", "18601"));
      await server.says("listens on");
      const started = await solo.cli(["intercept", "web", "--port", "18601"], { env });
      expect({ code: started.code, stdout: started.stdout }).toEqual({
        code: 0,
        stdout: expect.stringContaining("ACTIVE") as string,
      });
      for (const line of started.stderr.trim().split("\n")) expect(line).toMatch(/^(Warning: .*|)$/);
      // the node's own tables may still lead to an old pod, for a moment
      await until(
        "the laptop's answer",
        async () => (await solo.sh("curl -sS --max-time 10 http://web/")).stdout === "hello from laptop\n",
      );
      expect((await solo.cli(["leave", "web"], { env })).code).toBe(0);
      expect((await solo.cli(["uninstall", "--everything"], { env })).code).toBe(0);
      await kubectl("delete", "deployment,service", "web", "-n", "solo");
    });
  }
});

/** What the command says that an error names for checking. */
async function checked(stderr: string): Promise<string> {
  const command = /`(kubectl [^`]+)`/.exec(stderr)?.[1] ?? "echo no command in the error";
  return (await small.sh(command)).stdout;
}

describe("small, who may look and forward ports", () => {
  test("connects, and is told which verb lacks for a first intercept", async () => {
    const connected = await small.cli(["connect", "-n", namespace]);
    expect({ code: connected.code, stderr: connected.stderr.replaceAll(/^Warning: .*\n/gm, "") }).toEqual({
      code: 0,
      stderr: "",
    });
    expect((await small.sh("curl -sS --max-time 10 http://bare/")).stdout).toContain("Hello from the cluster");
    const { code, stderr } = await small.cli(["intercept", "bare", "--port", "18602"]);
    report("small, first intercept", stderr);
    expect(code).toBe(1);
    expect(stderr).toContain(`user "small" may not patch deployments.apps in namespace ${namespace}; check with`);
    expect(await checked(stderr)).toBe("no\n");
    expect(await field(namespace, "deployment/bare", ".metadata.generation")).toBe("1");
  });
  test("intercepts where an agent is; its environment cannot be read, which is a warning", async () => {
    const child = fixture("laptop-server.mjs", "18603");
    await using running = small.start(["intercept", "web", "--port", "18603", "-n", namespace, "--", ...child]);
    await running.says("listens on");
    report("small, intercept with a command", running.stderr);
    expect(running.stderr).toMatch(/^Warning: .*environment could not be read: .*pods\/exec/m);
    expect((await small.sh(`curl -sS --max-time 10 http://web.${namespace}/`)).stdout).toBe("hello from laptop\n");
    await small.ok("leave", "web");
    await running.ends();
    await small.quit();
  });
  test("may not install a manager, and is told the verb", async () => {
    const elsewhere = new Lab({ managerNamespace: "small", clusterUser: "small" });
    const { code, stderr } = await elsewhere.cli(["connect"]);
    report("small, no manager", stderr);
    expect(code).toBe(1);
    expect(stderr).toMatch(/the traffic-manager is missing and cannot be installed: .*create/);
    expect(await checked(stderr)).toBe("no\n");
    await elsewhere.quit();
  });
});

describe("poster, whose only way to pods is `create` on pods/portforward", () => {
  // WebSockets are a GET, so the server wants `get` for them: what is left is SPDY
  const as = ["--as", "poster"];
  const subject = { apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "poster" };
  const grant = (target: string): Promise<void> =>
    apply(
      target,
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "Role",
        metadata: { name: "poster" },
        rules: [
          { apiGroups: [""], resources: ["pods", "services"], verbs: ["get", "list", "watch"] },
          { apiGroups: ["apps"], resources: ["deployments", "replicasets"], verbs: ["get", "list", "watch"] },
          { apiGroups: [""], resources: ["pods/portforward"], verbs: ["create"] },
        ],
      },
      {
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "RoleBinding",
        metadata: { name: "poster" },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "poster" },
        subjects: [subject],
      },
    );

  test("connects and intercepts all the same", async () => {
    await grant(namespace);
    await grant(manager);
    const may = async (verb: string): Promise<string> =>
      (await admin.sh(`kubectl auth can-i ${verb} pods --subresource=portforward -n ${manager} ${as.join(" ")}`))
        .stdout;
    expect([await may("get"), await may("create")]).toEqual(["no\n", "yes\n"]);
    const { code, stderr } = await admin.cli(["connect", "-n", namespace, ...as]);
    expect({ code, stderr: stderr.replaceAll(/^Warning: .*\n/gm, "") }).toEqual({ code: 0, stderr: "" });
    expect((await admin.sh("curl -sS --max-time 10 http://bare/")).stdout).toContain("Hello from the cluster");
    const child = fixture("laptop-server.mjs", "18605");
    await using running = admin.start(["intercept", "web", "--port", "18605", ...as, "--", ...child]);
    await running.says("listens on");
    expect((await admin.sh(`curl -sS --max-time 10 http://web.${namespace}/`)).stdout).toBe("hello from laptop\n");
    await admin.ok("leave", "web");
    await running.ends();
  });
});

describe("root of the laptop", () => {
  test("goes the whole way without sudo", async () => {
    const before = await root.traces();
    await using server = root.spawn(fixture("laptop-server.mjs", "18604"));
    await server.says("listens on");
    await root.ok("intercept", "web", "--port", "18604", "-n", namespace);
    expect((await root.sh(`curl -sS --max-time 10 http://web.${namespace}/`)).stdout).toBe("hello from laptop\n");
    await root.ok("leave", "web");
    await root.ok("quit");
    await server[Symbol.asyncDispose]();
    expect(await root.traces()).toEqual(before);
  });
});
