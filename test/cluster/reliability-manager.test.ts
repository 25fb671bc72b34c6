// TARGETS' row "manager deleted under load, with and without intercepts": the application loses no request, and
// intercepts are active again within 3 s after the new manager is ready. Seeded: TELEPRESENCE_TEST_SEED repeats a run.
import { describe, expect, test } from "vitest";
import { randomFrom } from "#base/random-inputs.fake.ts";
import { countOf, patience } from "#test/rounds.ts";
import { Lab, apply, field, fixture, kubectl, report, rolledOut, webApp } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { PodWatch } from "./pod-watch.ts";
import { aRandomMoment, seed } from "./random.ts";
import { slownessDuring } from "./slowness.ts";
import { stage } from "./stage.ts";

const namespace = "it-manager-deleted";
/** A manager of this file's own: others must not notice. */
const managerNamespace = "it-deleted-manager";
const lab = new Lab({ managerNamespace });
const selector = "app.kubernetes.io/name=traffic-manager";
const rounds = countOf(2, 20);
const timeout = patience(180_000, 2, 20);
const limitMs = 3000;

stage([lab], namespace, managerNamespace);

describe("the manager deleted under load", () => {
  const random = randomFrom(seed);

  /** Resolves with the time at which the next one was told to be ready. In turn in order, and at once. */
  async function deleteManager(round: number): Promise<{ readonly deletedMs: number; readonly readyMs: number }> {
    await using watch = await PodWatch.start(managerNamespace, selector);
    const old = watch.pods.map(({ name }) => name);
    await aRandomMoment(random, 1000);
    const deletedMs = Date.now();
    const how = round % 2 === 1 ? ["--wait=false"] : ["--grace-period=0", "--force", "--wait=false"];
    await kubectl("delete", "pod", "-n", managerNamespace, "-l", selector, ...how);
    const next = await watch.until("another manager", (pods) => {
      return pods.find(({ name, readyMs }) => readyMs !== undefined && !old.includes(name));
    });
    return { deletedMs, readyMs: next.readyMs ?? Number.NaN };
  }

  test(
    `with an intercept: no request is lost, and the laptop has it again, ${rounds} rounds`,
    { timeout },
    async () => {
      await apply(namespace, ...webApp({ name: "web" }));
      await rolledOut(namespace, "deployment/web");
      await using server = lab.spawn(fixture("laptop-server.mjs", "18820"));
      await server.says("listens on");
      await lab.ok("intercept", "web", "--port", "18820", "-n", namespace);
      const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 50 });
      for (let round = 1; round <= rounds; round += 1) {
        await load.answeredBy(/^laptop$/, 0, { inARow: 30 });
        const { deletedMs, readyMs } = await deleteManager(round);
        const slowness = await slownessDuring(load.answeredBy(/^laptop$/, readyMs, { inARow: 50, limitMs: 60_000 }));
        const calls = await load.calls(deletedMs);
        const byApplication = calls.filter((call) => call.who.startsWith("web-"));
        const activeMs = Math.max(...byApplication.map((call) => call.atMs + call.tookMs)) - readyMs;
        report(`manager deleted, with an intercept, 50 requests/s, seed ${seed}`, {
          round,
          how: round % 2 === 1 ? "in order" : "forced",
          readyMs: readyMs - deletedMs,
          activeAfterReadyMs: activeMs,
          slowness,
          longestMs: Math.max(...calls.map((call) => call.tookMs)),
          calls: calls.length,
          failed: failures(calls).length,
          ...countByWho(calls),
        });
        expect(failures(calls, deletedMs)).toEqual([]);
        expect(activeMs).toBeLessThanOrEqual(limitMs * slowness);
      }
      await lab.ok("leave", "web");
    },
  );

  test(`without one: the agent passes every request on, ${rounds} rounds`, { timeout }, async () => {
    const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 50, name: "load-idle" });
    expect(await field(namespace, "deployment/web", ".spec.template")).toContain("traffic-agent");
    for (let round = 1; round <= rounds; round += 1) {
      const { deletedMs, readyMs } = await deleteManager(round);
      await load.answeredBy(/^web-/, readyMs, { inARow: 50 });
      const calls = await load.calls(deletedMs);
      report(`manager deleted, without an intercept, 50 requests/s, seed ${seed}`, {
        round,
        readyMs: readyMs - deletedMs,
        longestMs: Math.max(...calls.map((call) => call.tookMs)),
        calls: calls.length,
        failed: failures(calls).length,
        ...countByWho(calls),
      });
      expect(failures(calls, deletedMs)).toEqual([]);
      expect(Object.keys(countByWho(calls))).toEqual(["web"]);
    }
  });
});
