// TARGETS' row "laptop's network black-holed (no FIN, no RST)": the application answers within 6 s, no HTTP request
// waits longer or is lost, and when the network is back the intercept is, without a command. The workload tells of it.
// Seeded: TELEPRESENCE_TEST_SEED repeats a run.
import { afterAll, describe, expect, test } from "vitest";
import { randomFrom } from "#base/random-inputs.fake.ts";
import * as cluster from "#testbed/cluster.ts";
import { linkSilenceMs } from "#wire/limits.ts";
import { Lab, apply, fixture, kubectl, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import { aRandomMoment, seed } from "./random.ts";
import { slownessDuring } from "./slowness.ts";
import { stage } from "./stage.ts";

const namespace = "it-black-hole";
const lab = new Lab({ managerNamespace: "it-manager" });
/** The target; what is left of it after the silence is processor time. */
const limitMs = 6000;
const afterSilenceMs = limitMs - linkSilenceMs;
/** Longer than any wait of the link for a far end that is silent. */
const holeMs = 15_000;

afterAll(async () => await cluster.restoreWire());
stage([lab], namespace);

interface Told {
  readonly reason: string;
  readonly message: string;
  readonly lastTimestamp: string;
}

/** Of one workload. */
async function eventsOf(workload: string): Promise<readonly Told[]> {
  const selector = `--field-selector=involvedObject.kind=Deployment,involvedObject.name=${workload}`;
  const text = await kubectl("get", "events", "-n", namespace, selector, "-o", "json");
  const { items } = JSON.parse(text) as { items: Told[] };
  return items.filter(({ reason }) => reason.startsWith("Intercept"));
}

describe("a laptop's network that swallows everything", () => {
  const random = randomFrom(seed);
  for (const agent of ["sidecar", "ephemeral"] as const) {
    const name = `hole-${agent}`;
    const intercepting = new Lab({ ...lab.options, agent });
    test(`the application answers within ${limitMs / 1000} s, and the intercept comes back, ${agent}`, async () => {
      await apply(namespace, ...webApp({ name }));
      await rolledOut(namespace, `deployment/${name}`);
      await using server = lab.spawn(fixture("laptop-server.mjs", "18810"));
      await server.says("listens on");
      const said = await intercepting.ok("intercept", name, "--port", "18810", "-n", namespace);
      expect(said.includes("no pod was restarted")).toBe(agent === "ephemeral");
      const target = `http://${name}.${namespace}/`;
      const load = await Load.start({ namespace, target, perSecond: 50, name: `load-${name}` });
      await load.answeredBy(/^laptop$/, 0, { inARow: 30 });
      await aRandomMoment(random, 2000); // somewhere between two heart-beats
      const startMs = Date.now();
      await cluster.blackHole();
      const cutMs = Date.now();
      const answered = load.answeredBy(new RegExp(`^${name}-`), cutMs, { inARow: 30, limitMs: 30_000 });
      const slowness = await slownessDuring(answered);
      await answered;
      await new Promise((resolve) => setTimeout(resolve, cutMs + holeMs - Date.now()));
      const backMs = Date.now();
      await cluster.restoreWire();
      await load.answeredBy(/^laptop$/, backMs, { inARow: 30, limitMs: 60_000 });
      const calls = await load.calls(startMs);
      const byApplication = calls.filter((call) => call.who.startsWith(name));
      const answeredMs = Math.min(...byApplication.map((call) => call.atMs + call.tookMs)) - startMs;
      const longestMs = Math.max(...calls.map((call) => call.tookMs));
      const activeMs = Math.max(...byApplication.map((call) => call.atMs + call.tookMs)) - backMs;
      report(`black hole of ${holeMs / 1000} s, ${agent} agent, 50 requests/s, seed ${seed}`, {
        answeredMs,
        longestMs,
        activeAgainMs: activeMs,
        calls: calls.length,
        failed: failures(calls).length,
        slowness,
        ...countByWho(calls),
      });
      expect(failures(calls, startMs)).toEqual([]);
      const slowLimitMs = linkSilenceMs + afterSilenceMs * slowness;
      expect(answeredMs).toBeLessThanOrEqual(slowLimitMs);
      expect(longestMs).toBeLessThanOrEqual(slowLimitMs);

      // The laptop writes the events, so those of the loss come late, with their own times: nobody else may write them.
      await until("the events", async () => {
        const active = (await eventsOf(name)).filter(({ reason }) => reason === "InterceptActive");
        return active.some(({ message }) => message.includes("is active again"));
      });
      const described = await kubectl("describe", "deployment", name, "-n", namespace);
      const events = described.slice(described.indexOf("Events:"));
      report(`kubectl describe deployment after the black hole, ${agent} agent`, events);
      expect(events).toMatch(/InterceptActive .*is active: port 80 is answered from that laptop/);
      expect(events).toMatch(/InterceptSuspended .*the application answers until the laptop is back/);
      expect(events).toMatch(/InterceptActive .*is active again: port 80 is answered from that laptop/);
      const told = await eventsOf(name);
      const [suspended] = told.filter(({ reason }) => reason === "InterceptSuspended");
      const suspendedMs = Date.parse(suspended?.lastTimestamp ?? "") - cutMs;
      expect(suspendedMs).toBeGreaterThan(-1000); // in whole seconds
      expect(suspendedMs).toBeLessThanOrEqual(slowLimitMs);
      expect(await lab.ok("list", "--intercepts", "-n", namespace)).toMatch(
        new RegExp(`^${name} *: intercepted$`, "m"),
      );
      await lab.ok("leave", name);
      await load.answeredBy(new RegExp(`^${name}-`), Date.now(), { inARow: 30 });
      expect(failures(await load.calls(startMs), startMs)).toEqual([]);
      await kubectl("delete", "deployment", name, `load-${name}`, "-n", namespace, "--wait=false");
    });
  }
});
