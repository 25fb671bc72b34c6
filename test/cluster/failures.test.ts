// An agent that cannot come up: the cluster's own reason within seconds, in one sentence, and our patch taken back.
// Told by the command line, as a person meets it; installer.test.ts asks the installer itself.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import {
  Lab,
  apply,
  field,
  fixture,
  freshNamespaces,
  kubectl,
  prepare,
  removeNamespaces,
  rolledOut,
  until,
  webApp,
  report,
} from "./lab.ts";

const namespace = "it-failures";
const restricted = "it-restricted";
const lab = new Lab({ managerNamespace: "it-manager" });
/** chosen: `seconds rather than a time-out`, on a machine that does ten other things. */
const limitMs = 45_000;

beforeAll(async () => {
  await prepare();
  await lab.quit();
  await freshNamespaces(namespace, restricted);
  const level = "pod-security.kubernetes.io/enforce=restricted";
  await kubectl("label", "namespace", restricted, level);
});
afterAll(async () => {
  await lab.quit();
  await removeNamespaces(namespace, restricted);
});

async function failsToIntercept(name: string, flags: readonly string[], where = namespace): Promise<string> {
  const before = await field(where, `deployment/${name}`, ".spec.template");
  const startMs = performance.now();
  const { code, stdout, stderr } = await lab.cli(["intercept", name, "--port", "18400", "-n", where, ...flags]);
  const tookMs = Math.round(performance.now() - startMs);
  report("intercept that cannot come up", `${tookMs} ms: ${stderr}`);
  expect({ code, lines: stderr.trim().split("\n").length }).toEqual({ code: 1, lines: 1 });
  expect(stdout).not.toContain("Using");
  expect(await field(where, `deployment/${name}`, ".spec.template")).toBe(before);
  expect(tookMs).toBeLessThan(limitMs);
  expect(await lab.ok("list", "--intercepts", "-n", where)).not.toContain("ACTIVE");
  return stderr;
}

describe("an agent that cannot come up is named with the reason, and taken back", () => {
  beforeEach(async () => {
    await lab.quit();
    await apply(namespace, ...webApp({ name: "web" }));
    await rolledOut(namespace, "deployment/web");
  });
  test("an image that nobody has", async () => {
    await lab.ok("connect", "-n", namespace); // with the right one: the manager is there
    await lab.quit();
    const image = ["--image", "docker.io/testbed/no-such-image:1", "--image-pull-policy", "Never"];
    expect(await failsToIntercept("web", image)).toContain(
      "image docker.io/testbed/no-such-image:1 of container traffic-agent",
    );
  });
  test("a quota", async () => {
    await kubectl("create", "quota", "tiny", "--hard=pods=1", "-n", namespace);
    expect(await failsToIntercept("web", [])).toContain("exceeded quota: tiny");
    await kubectl("delete", "quota", "tiny", "-n", namespace);
  });
  test("no node for it, because the application wants one to itself", async () => {
    const own = { labelSelector: { matchLabels: { app: "alone" } }, topologyKey: "kubernetes.io/hostname" };
    const pod = { affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [own] } } };
    await apply(namespace, ...webApp({ name: "alone", pod }));
    await rolledOut(namespace, "deployment/alone");
    expect(await failsToIntercept("alone", [])).toMatch(/finds no node: 0\/1 nodes are available/);
  });
  test("a release made meanwhile stays", async () => {
    await kubectl("create", "quota", "tiny", "--hard=pods=1", "-n", namespace);
    const running = lab.start(["intercept", "web", "--port", "18400", "-n", namespace]);
    await until("our patch", async () =>
      (await field(namespace, "deployment/web", ".spec.template")).includes("traffic-agent"),
    );
    await kubectl("set", "env", "-n", namespace, "deployment/web", "RELEASE=meanwhile");
    expect(await running.ends()).toBe(1);
    const template = await field(namespace, "deployment/web", ".spec.template");
    expect(template).toContain("meanwhile");
    expect(template).not.toContain("traffic-agent");
    await kubectl("delete", "quota", "tiny", "-n", namespace);
  });
});

describe("pod security at its strictest", () => {
  test("admits an agent for a named port, the whole way", async () => {
    await lab.quit();
    await apply(restricted, ...webApp({ name: "web" }));
    await rolledOut(restricted, "deployment/web");
    await using server = lab.spawn(fixture("laptop-server.mjs", "18401"));
    await server.says("listens on");
    await lab.ok("intercept", "web", "--port", "18401", "-n", restricted);
    expect((await lab.sh(`curl -sS --max-time 10 http://web.${restricted}/`)).stdout).toBe("hello from laptop\n");
    await lab.ok("leave", "web");
    await lab.ok("uninstall", "--all-agents", "-n", restricted);
    expect(await field(restricted, "deployment/web", ".spec.template")).not.toContain("traffic-agent");
  });
  test("forbids a redirect, which is told before anything is changed", async () => {
    await apply(restricted, ...webApp({ name: "number", servicePorts: [{ port: 80, targetPort: 8000 }] }));
    await rolledOut(restricted, "deployment/number");
    const generation = await field(restricted, "deployment/number", ".metadata.generation");
    const said = await failsToIntercept("number", [], restricted);
    expect(said).toMatch(/needs a redirect for its port 8000 .*restricted forbids that; name the port/);
    expect(await field(restricted, "deployment/number", ".metadata.generation")).toBe(generation);
  });
});
