// A ReplicaSet that nobody owns, the whole way by the command line. Its controller never replaces pods when the template
// changes: the product does, one at a time.
import { beforeAll, expect, test } from "vitest";
import { Lab, apply, field, fixture, rolledOut, until, webApp } from "./lab.ts";
import { Load, failures } from "./load.ts";
import { stage } from "./stage.ts";

const namespace = "it-replicaset";
const lab = new Lab({ managerNamespace: "it-manager" });

stage([lab], namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "bare", kind: "ReplicaSet", replicas: 2 }));
  await rolledOut(namespace, "replicaset/bare");
});

test("a ReplicaSet without an owner is listed, intercepted, left and cleaned, and loses no request", async () => {
  const template = await field(namespace, "replicaset/bare", ".spec.template");
  await lab.ok("connect", "-n", namespace);
  expect(await lab.ok("list")).toBe("bare: ready to intercept (traffic-agent not yet installed)\n");
  const load = await Load.start({ namespace, target: `http://bare.${namespace}/` });
  await using server = lab.spawn(fixture("laptop-server.mjs", "18700"));
  await server.says("listens on");
  const startMs = Date.now();
  const said = await lab.ok("intercept", "bare", "--port", "18700");
  expect(said).toMatch(/^Using ReplicaSet bare\n/);
  expect(said).toMatch(/Intercepting +: \S+, \S+ -> 127\.0\.0\.1\n/); // both pods
  await load.answeredBy(/^laptop$/, Date.now(), { inARow: 30 });
  expect(await lab.ok("list")).toMatch(/^bare *: intercepted\n/);
  await lab.ok("leave", "bare");
  await load.answeredBy(/^bare-/, Date.now(), { inARow: 30 });
  expect(await lab.ok("list", "--agents")).toContain("bare: ready to intercept (traffic-agent already installed)");
  expect(await lab.ok("uninstall", "--agent", "bare")).toBe("ReplicaSet bare: traffic-agent removed\n");
  expect(await field(namespace, "replicaset/bare", ".spec.template")).toBe(template);
  const withAgent = ".items[?(@.spec.initContainers)].metadata.name";
  await until("the last agent's end", async () => (await field(namespace, "pods", withAgent)) === "");
  await rolledOut(namespace, "replicaset/bare");
  await load.answeredBy(/^bare-/, Date.now(), { inARow: 30 });
  expect(failures(await load.calls(startMs), startMs)).toEqual([]);
});
