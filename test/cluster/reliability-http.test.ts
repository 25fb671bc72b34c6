// TARGETS' rows "attach and detach", by port take-over in place and by redirect, and "kill -9 of the laptop's daemon under
// load": HTTP is decided request by request, so no request is lost, whenever its connection was opened. Ephemeral agents
// are in ephemeral.test.ts; the cycles of both files are the 20 of that row. Seeded: TELEPRESENCE_TEST_SEED repeats a run.
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { randomFrom } from "#base/random-inputs.fake.ts";
import { countOf, patience } from "#test/rounds.ts";
import * as layout from "#testbed/layout.ts";
import { Lab, apply, field, fixture, kubectl, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures, type Call } from "./load.ts";
import { aRandomMoment, seed } from "./random.ts";
import { startRawStream } from "./raw-stream.ts";
import { stage } from "./stage.ts";

const namespace = "it-http";
const lab = new Lab({ managerNamespace: "it-manager" });
const random = randomFrom(seed);

stage([lab], namespace);

const webPort = (targetPort: string | number): object => ({
  servicePorts: [{ name: "http", port: 80, targetPort }],
});
const echoApp = (targetPort: string | number): object => ({
  ports: [{ name: "tcp", containerPort: 7000 }],
  servicePorts: [{ name: "tcp", port: 7000, targetPort }],
  container: {
    command: ["python3", "/samples/echo.py"],
    readinessProbe: { tcpSocket: { port: 7000 }, periodSeconds: 1 },
  },
});

/** What changes when one of them is replaced or restarted. */
async function podsWithAgent(): Promise<string> {
  const what = "{.metadata.uid} {.status.containerStatuses[*].restartCount}";
  return await field(namespace, "pods", `range .items[?(@.spec.initContainers)]}${what} {end`);
}

async function echoOnLaptop(port: number): Promise<AsyncDisposable> {
  const script = join(layout.checkoutRoot, "testbed/samples/echo.py");
  const running = lab.spawn(["env", `PORT=${port}`, "python3", script]);
  await until("the laptop's echo", async () => (await lab.sh(`ss -Hltn sport = :${port}`)).stdout !== "");
  return running;
}

describe.each([
  { way: "port take-over", webTarget: "http", rawTarget: "tcp" },
  { way: "redirect", webTarget: 8000, rawTarget: 7000 },
])("attach and detach by $way under load", ({ way, webTarget, rawTarget }) => {
  const rounds = countOf(7, 70);
  test(`lose no request and reset no connection, ${rounds} cycles`, { timeout: patience(600_000, 7, 70) }, async () => {
    await apply(namespace, ...webApp({ name: "web", ...webPort(webTarget) }));
    await apply(namespace, ...webApp({ name: "raw", ...echoApp(rawTarget) }));
    await rolledOut(namespace, "deployment/web", "deployment/raw");
    await using server = lab.spawn(fixture("laptop-server.mjs", "18830"));
    await server.says("listens on");
    await using _echo = await echoOnLaptop(18_831);
    // The first attach is a rollout, which is a row of its own: from here on the agents are there.
    await lab.ok("connect", "-n", namespace);
    for (const [name, port] of [
      ["web", "18830"],
      ["raw", "18831"],
    ] as const) {
      await lab.ok("intercept", name, "--port", port);
      await lab.ok("leave", name);
      await rolledOut(namespace, `deployment/${name}`);
    }
    const before = await podsWithAgent();
    const load = await Load.start({ namespace, target: `http://web.${namespace}/`, perSecond: 200 });
    const raw = await startRawStream(namespace, `raw.${namespace}:7000`);
    const startMs = Date.now();
    const figures: { attachMs: number; leaveMs: number }[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      await aRandomMoment(random, 500);
      const wishedMs = Date.now();
      await lab.ok("intercept", "web", "--port", "18830");
      const attachMs = Date.now() - wishedMs;
      await lab.ok("intercept", "raw", "--port", "18831");
      await load.answeredBy(/^laptop$/, wishedMs);
      await aRandomMoment(random, 500);
      const leaveStartMs = Date.now();
      await lab.ok("leave", "web");
      figures.push({ attachMs, leaveMs: Date.now() - leaveStartMs });
      await lab.ok("leave", "raw");
      await load.answeredBy(/^web-/, Date.now());
    }
    const calls = await load.calls(startMs);
    const stream = await raw();
    const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
    report(`attach and detach by ${way}, ${rounds} cycles, 200 requests/s wished for and a raw stream, seed ${seed}`, {
      attachMs: median(figures.map((figure) => figure.attachMs)),
      leaveMs: median(figures.map((figure) => figure.leaveMs)),
      calls: calls.length,
      callsPerSecond: Math.round((calls.length * 1000) / (Date.now() - startMs)),
      onKept: calls.filter((call) => call.kept).length,
      failed: failures(calls).length,
      ...countByWho(calls),
      rawConnections: stream.opened,
      rawBytes: stream.sent,
      rawErrors: stream.errors.length,
    });
    expect(failures(calls, startMs)).toEqual([]);
    expect(stream.errors).toEqual([]);
    expect(calls.filter((call) => call.kept && call.who === "laptop").length).toBeGreaterThan(100);
    expect(await podsWithAgent()).toEqual(before);
    const made = [
      "deployment/web",
      "deployment/raw",
      "deployment/load",
      "pod/raw-stream",
      "service/web",
      "service/raw",
    ];
    await kubectl("delete", "-n", namespace, ...made);
  });
});

describe("kill -9 of the laptop's daemon under HTTP load", () => {
  const rounds = countOf(5, 50);
  const limitMs = 500;
  /** Tells a busy machine from a slow product: what nineteen of twenty calls stayed below before the kill. */
  const usualMs = (calls: readonly Call[], killedMs: number): number => {
    const before = calls.filter((call) => call.atMs + call.tookMs < killedMs).map((call) => call.tookMs);
    return before.toSorted((a, b) => a - b)[Math.floor(before.length * 0.95)] ?? 0;
  };
  const text = `the application answers within ${limitMs} ms`;
  test(`loses no request, and ${text}, ${rounds} rounds`, { timeout: patience(180_000, 5, 50) }, async () => {
    await apply(namespace, ...webApp({ name: "killed" }));
    await rolledOut(namespace, "deployment/killed");
    await using server = lab.spawn(fixture("laptop-server.mjs", "18832"));
    await server.says("listens on");
    await lab.ok("intercept", "killed", "--port", "18832", "-n", namespace);
    const target = `http://killed.${namespace}/`;
    const load = await Load.start({ namespace, target, perSecond: 100, name: "load-killed" });
    const figures: { answeredMs: number; usualMs: number; longestMs: number; calls: number; lost: number }[] = [];
    const lost: string[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      if (round > 1) await lab.ok("intercept", "killed", "--port", "18832", "-n", namespace);
      await load.answeredBy(/^laptop$/, 0, { inARow: 30 });
      await aRandomMoment(random, 500);
      const killedMs = Date.now();
      for (const pid of lab.pids("daemon")) process.kill(pid, "SIGKILL");
      const doneMs = Date.now();
      await load.answeredBy(/^killed-/, doneMs, { inARow: 50, limitMs: 20_000 });
      // a little from before, too: those were under way
      const calls = await load.calls(killedMs - 1000);
      const by = calls.filter((call) => call.who.startsWith("killed-") && call.atMs + call.tookMs >= killedMs);
      const answeredMs = Math.min(...by.map((call) => call.atMs + call.tookMs)) - doneMs;
      const longestMs = Math.max(...calls.map((call) => call.tookMs));
      lost.push(...failures(calls, killedMs));
      figures.push({
        answeredMs,
        usualMs: usualMs(await load.calls(killedMs - 5000), killedMs),
        longestMs,
        calls: calls.length,
        lost: failures(calls).length,
      });
    }
    report(`kill -9 of the daemon, 100 requests/s, ${rounds} rounds, seed ${seed}`, figures);
    expect(lost).toEqual([]);
    for (const { answeredMs } of figures) expect(answeredMs).toBeLessThanOrEqual(limitMs);
  });
});
