// Teams whose manifests are kept elsewhere (GitOps, issue 4 C.10): an ephemeral agent leaves no trace in a workload that a
// synchronisation could find; a sidecar can stand in the manifest, and is then used as it is and never taken out.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, field, fixture, kubectl, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { stage } from "./stage.ts";

const namespace = "it-genyaml";
const lab = new Lab({ managerNamespace: "it-genyaml-manager", agent: "auto" });
const folder = mkdtempSync(join(tmpdir(), "genyaml-"));

stage([lab], namespace);
beforeAll(async () => {
  chmodSync(folder, 0o755); // the laptop's user reads it
  await apply(namespace, ...webApp({ name: "web" }), ...webApp({ name: "drift" }));
  await rolledOut(namespace, "deployment/web", "deployment/drift");
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await lab.cli(["uninstall", "--everything"]);
});

interface Managed {
  readonly metadata: {
    readonly generation: number;
    readonly labels?: object;
    readonly annotations?: object;
    readonly managedFields: readonly { readonly subresource?: string }[];
  };
  readonly spec: object;
}
/** What a synchronisation compares, and who has written which of it. */
async function seen(object: string): Promise<object> {
  const text = await kubectl("get", "-n", namespace, object, "-o", "json", "--show-managed-fields");
  const { metadata, spec } = JSON.parse(text) as Managed;
  const { generation, labels, annotations, managedFields } = metadata;
  const writers = managedFields.filter((entry) => entry.subresource !== "status");
  return { generation, labels, annotations, writers, spec };
}
const applyText = (input: string, ...more: readonly string[]): Promise<unknown> =>
  cluster.kubectl(["apply", "-n", namespace, "-f", "-", ...more], { input });
const podNames = (): Promise<string> => kubectl("get", "pods", "-n", namespace, "-l", "app=web", "-o", "name");

test("an ephemeral agent changes nothing in its workload or service", async () => {
  await lab.ok("connect", "-n", namespace);
  const objects = ["deployment/drift", "service/drift"];
  const before = await Promise.all(objects.map(seen));
  await lab.ok("intercept", "drift", "--port", "18740");
  expect(await Promise.all(objects.map(seen))).toEqual(before);
  await lab.ok("leave", "drift");
  expect(await lab.ok("uninstall", "--agent", "drift")).toContain("Deployment drift: traffic-agent ends");
  expect(await Promise.all(objects.map(seen))).toEqual(before);
  report("intercept, leave and uninstall", "0 of 2 objects changed: generation, spec, labels, annotations, writers");
});

test("every part is YAML, and names what it does not do by itself", async () => {
  for (const part of ["config", "container", "initcontainer", "annotations", "volume"]) {
    const { code, stdout, stderr } = await lab.cli(["genyaml", part, "-w", "web", "-n", namespace]);
    expect([code, typeof parse(stdout)]).toEqual([0, "object"]);
    expect(stderr).toContain("Warning: the agent takes the name http: call port 8000 of container web tm-http");
  }
  const { stderr } = await lab.cli(["genyaml", "everything", "-w", "web"]);
  expect(stderr).toContain('genyaml knows no "everything", expected one of workload, config, container');
});

test("an agent of the manifest is used without a rollout, loses no request, and is never removed", async () => {
  const printed = await lab.ok("genyaml", "-w", "deploy/web", "-n", namespace);
  await applyText(printed, "--dry-run=server");
  const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 20 });
  const startMs = Date.now();
  await applyText(printed);
  await rolledOut(namespace, "deployment/web");
  await until("the end of the pod without it", async () => (await podNames()).trim().split("\n").length === 1);
  const [before, pods] = [await seen("deployment/web"), await podNames()];
  expect(await lab.ok("list")).toContain("web  : ready to intercept (traffic-agent already installed)");
  await using server = lab.spawn(fixture("laptop-server.mjs", "18740"));
  await server.says("listens on");
  const attachedMs = performance.now();
  await lab.ok("intercept", "web", "--port", "18740");
  const attachMs = Math.round(performance.now() - attachedMs);
  await load.answeredBy(/^laptop$/, Date.now(), { inARow: 30 });
  await lab.ok("leave", "web");
  await load.answeredBy(/^web-/, Date.now(), { inARow: 30 });
  for (const words of [["--agent", "web"], ["--all-agents", "-n", namespace], ["--everything"]]) {
    const { code, stdout, stderr } = await lab.cli(["uninstall", ...words]);
    expect([code, stdout]).toEqual([0, expect.not.stringContaining("Deployment web")]);
    expect(stderr).toContain("Warning: Deployment web keeps its traffic-agent, which is part of its manifest\n");
  }
  expect(await seen("deployment/web")).toEqual(before);
  expect(await podNames()).toBe(pods);
  await load.answeredBy(/^web-/, Date.now(), { inARow: 30 });
  const calls = await load.calls(startMs);
  report("agent of the manifest", { attachMs, calls: calls.length, ...countByWho(calls) });
  expect(failures(calls, startMs)).toEqual([]);
  // Printed again, with what is there: nothing to apply.
  const again = await lab.ok("genyaml", "-w", "web", "-n", namespace);
  await applyText(again);
  expect(await field(namespace, "deployment/web", ".metadata.generation")).toBe(
    String((before as { generation: number }).generation),
  );
  await kubectl("delete", "-n", namespace, "deployment/load", "--wait=false");
});

test("a manifest of a file, with services that the cluster does not know yet", async () => {
  const file = join(folder, "app.yaml");
  const [deployment, service] = webApp({ name: "fresh" });
  writeFileSync(file, [deployment, service].map((item) => JSON.stringify(item)).join("\n---\n"), { mode: 0o644 });
  const { code, stdout, stderr } = await lab.sh(`cat ${file} | telepresence genyaml -i - -n ${namespace}`);
  expect([code, stderr]).toEqual([
    0,
    `Warning: the agent of deployment fresh is written for namespace ${namespace}: -n chooses another\n`,
  ]);
  expect(parseAllDocuments(stdout)).toHaveLength(2);
  await applyText(stdout);
  await rolledOut(namespace, "deployment/fresh");
  await lab.ok("connect", "-n", namespace);
  await using server = lab.spawn(fixture("laptop-server.mjs", "18741"));
  await server.says("listens on");
  const said = await lab.ok("intercept", "fresh", "--port", "18741", "--agent", "sidecar");
  expect(said).toContain("Using Deployment fresh\n");
  expect((await lab.sh(`curl -sS --max-time 5 http://fresh.${namespace}/`)).stdout).toBe("hello from laptop\n");
  await lab.ok("leave", "fresh");
  expect(await field(namespace, "deployment/fresh", ".metadata.generation")).toBe("1");
  report("agent of a file's manifest", "used at generation 1");
});
