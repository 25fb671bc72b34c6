// `uninstall` takes exactly what was put in, out of the objects as they are now.
import { afterAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, kubectl, rolledOut, webApp } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-uninstall";
const lab = new Lab({ managerNamespace: "it-manager" });
const solo = new Lab({ clusterUser: "solo" });

stage([lab], namespace);
afterAll(async () => {
  await kubectl("delete", "deployment,service,statefulset", "--all", "-n", "solo");
});

const template = async (name: string, where = namespace): Promise<unknown> =>
  JSON.parse(await field(where, `deployment/${name}`, ".spec.template"));

describe("uninstall --agent", () => {
  test("gives the template back to the byte, and the service too", async () => {
    await apply(namespace, ...webApp({ name: "web" }), ...webApp({ name: "other" }));
    await rolledOut(namespace, "deployment/web", "deployment/other");
    const before = [await template("web"), await field(namespace, "service/web", ".spec")];
    await lab.ok("connect", "-n", namespace);
    await lab.ok("intercept", "web", "--port", "18500");
    await lab.ok("intercept", "other", "--port", "18501");
    expect(await template("web")).not.toEqual(before[0]);
    // an intercept is going on: it ends in order first
    expect(await lab.ok("uninstall", "--agent", "web")).toBe("Deployment web: traffic-agent removed\n");
    expect([await template("web"), await field(namespace, "service/web", ".spec")]).toEqual(before);
    expect(JSON.stringify(await template("other"))).toContain("traffic-agent");
    expect(await lab.ok("list", "--agents")).not.toContain("web");
    expect(await lab.ok("list", "--intercepts")).toContain("other");
    await lab.ok("leave", "other");
  });
  test("keeps a release that was made while the agent was there", async () => {
    await kubectl("set", "env", "-n", namespace, "deployment/other", "RELEASE=new");
    await kubectl("scale", "-n", namespace, "deployment/other", "--replicas=2");
    await rolledOut(namespace, "deployment/other");
    expect(await lab.ok("uninstall", "--all-agents")).toBe("Deployment other: traffic-agent removed\n");
    const now = JSON.stringify(await template("other"));
    expect(now).toContain("RELEASE");
    expect(now).not.toContain("traffic-agent");
    expect(now).not.toContain("telepresence");
    expect(await field(namespace, "deployment/other", ".spec.replicas")).toBe("2");
  });
  test("says so when there is nothing", async () => {
    expect(await lab.ok("uninstall", "--all-agents")).toBe("Nothing to uninstall\n");
    const { code, stderr } = await lab.cli(["uninstall", "--agent", "web"]);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: "telepresence: error: No agent found for web in namespace it-uninstall; none in this namespace has one\n",
    });
  });
});

describe("uninstall --everything, as a user of one namespace", () => {
  test("leaves the namespace's objects and the laptop as they were", async () => {
    await lab.quit();
    await apply("solo", ...webApp({ name: "web" }));
    await rolledOut("solo", "deployment/web");
    const kinds = "deployments,services,serviceaccounts,roles,rolebindings,configmaps,secrets,networkpolicies";
    const objects = async (): Promise<string> => await kubectl("get", kinds, "-n", "solo", "-o", "name");
    const before = [await objects(), await template("web", "solo"), await solo.traces()];
    const connected = await solo.cli(["connect", "--direct", "nodeport"]);
    expect(connected.code).toBe(0);
    expect(connected.stderr).toMatch(/^Warning: the traffic-manager was installed in namespace solo, because .*\n$/);
    await solo.ok("intercept", "web", "--port", "18502");
    expect(await objects()).toContain("deployment.apps/traffic-manager");
    expect(await objects()).toContain("service/traffic-manager-direct");
    const said = await solo.ok("uninstall", "--everything");
    expect(said).toContain("Deployment web: traffic-agent removed");
    expect([await objects(), await template("web", "solo"), await solo.traces()]).toEqual(before);
    expect(solo.pids("daemon")).toEqual([]);
    expect((await cluster.kubectl(["get", "ns", "solo"])).code).toBe(0);
  });
});
