// TARGETS' reliability table, the rows of the intercept path: no request is lost by a first attach and its undo, nor by
// a release during an intercept. The rows of what breaks are in reliability-*.test.ts.
import { describe, expect, test } from "vitest";
import { countOf, patience } from "#test/rounds.ts";
import { Lab, apply, field, fixture, kubectl, rolledOut, toolsImage, until, webApp, report } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { stage } from "./stage.ts";

const namespace = "it-reliability";
const lab = new Lab({ managerNamespace: "it-manager" });

/** The same program under another name: as new to Kubernetes as any image. */
const releasedImage = toolsImage.replace("docker.io/", "");

stage([lab], namespace);

describe("a first attach to three replicas, and its undo", () => {
  const rounds = countOf(2, 20);
  test(`lose no request, ${rounds} rounds`, { timeout: patience(180_000, 2, 20) }, async () => {
    await apply(namespace, ...webApp({ name: "web", replicas: 3 }));
    await rolledOut(namespace, "deployment/web");
    const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 50 });
    await lab.ok("connect", "-n", namespace);
    await using server = lab.spawn(fixture("laptop-server.mjs", "18000"));
    await server.says("listens on");
    for (let round = 1; round <= rounds; round += 1) {
      const startMs = Date.now();
      const said = await lab.ok("intercept", "web", "--port", "18000");
      expect(said).toMatch(/Intercepting +: (\S+, ){2}\S+ -> 127.0.0.1\n/); // three pods
      const attachedMs = Date.now();
      // "active" means every replica: no new connection passes an agent to the application any more. Old pods that the
      // node's tables still lead to for a moment are none of ours.
      await load.answeredBy(/^laptop$/, attachedMs, { inARow: 30 });
      const withAgent = await field(namespace, "pods", ".items[?(@.spec.initContainers)].metadata.name");
      const fresh = (await load.calls(attachedMs)).filter((call) => !call.kept);
      expect(withAgent.split(" ").length).toBeGreaterThanOrEqual(3);
      expect(fresh.filter((call) => withAgent.includes(call.who) && call.who !== "")).toEqual([]);
      await lab.ok("leave", "web");
      const leftMs = Date.now();
      await lab.ok("uninstall", "--agent", "web", "-n", namespace);
      const removedMs = Date.now();
      expect(await field(namespace, "deployment/web", ".spec.template")).not.toContain("traffic-agent");
      await rolledOut(namespace, "deployment/web");
      await until(
        "the old pods' end",
        async () => (await field(namespace, "pods", ".items[*].metadata.name")).split(" ").length === 4,
      );
      const calls = await load.calls(startMs);
      const figures = {
        round,
        attachMs: attachedMs - startMs,
        leaveMs: leftMs - attachedMs,
        uninstallMs: removedMs - leftMs,
      };
      report("first attach and undo, 3 replicas, 50 requests/s", {
        ...figures,
        calls: calls.length,
        ...countByWho(calls),
      });
      expect(failures(calls, startMs)).toEqual([]);
    }
  });
});

describe("a release by image during an intercept, three replicas", () => {
  test("loses no request, its pods are intercepted, and uninstall keeps it", async () => {
    await apply(namespace, ...webApp({ name: "released", replicas: 3 }));
    await rolledOut(namespace, "deployment/released");
    const load = await Load.start({ namespace, target: `http://released.${namespace}/`, name: "load-released" });
    await using server = lab.spawn(fixture("laptop-server.mjs", "18002"));
    await server.says("listens on");
    await lab.ok("intercept", "released", "--port", "18002", "-n", namespace);
    await load.answeredBy(/^laptop$/, Date.now(), { inARow: 30 });
    const startMs = Date.now();
    const pods = async (): Promise<string> =>
      await field(namespace, "pods", ".items[?(@.metadata.labels.app=='released')].metadata.name");
    const before = (await pods()).split(" ");
    await kubectl("set", "image", "-n", namespace, "deployment/released", `released=${releasedImage}`);
    await rolledOut(namespace, "deployment/released");
    await until("the old pods' end", async () => {
      const now = await pods();
      return before.every((name) => !now.includes(name));
    });
    const rolledMs = Date.now();
    // new pods are introduced as they come: what is called from here on is the laptop's
    await load.answeredBy(/^laptop$/, rolledMs, { inARow: 50 });
    await load.answeredBy(/^laptop$/, rolledMs, { inARow: 50 });
    expect(await lab.ok("list", "--intercepts", "-n", namespace)).toMatch(/^released *: intercepted$/m);
    await lab.ok("leave", "released");
    await lab.ok("uninstall", "--agent", "released", "-n", namespace);
    const template = await field(namespace, "deployment/released", ".spec.template");
    expect(template).toContain(releasedImage);
    expect(template).not.toContain("traffic-agent");
    await rolledOut(namespace, "deployment/released");
    await load.answeredBy(/^released-/, Date.now(), { inARow: 30 });
    const calls = await load.calls(startMs);
    report("release by image during an intercept, 3 replicas, 50 requests/s", {
      rolloutMs: rolledMs - startMs,
      calls: calls.length,
      ...countByWho(calls),
    });
    expect(failures(calls, startMs)).toEqual([]);
  });
});
