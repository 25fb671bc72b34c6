// Wiretaps on a real workload, with both kinds of agent: two laptops get copies of a running load while a third party's
// requests are intercepted, one of the laptops never answers, and the other's daemon is killed. Nobody in the cluster
// notices: no request fails, and none takes longer.
import { beforeAll, describe, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, fixture, report, rolledOut, until, webApp } from "./lab.ts";
import { Load, countByWho, failures } from "./load.ts";
import type { Call } from "./load.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-wiretap";
const managerNamespace = "it-wiretap-manager";
const labs = [1, 2].map((laptop) => new Lab({ managerNamespace, laptop: laptop as 1 | 2 }));
const [ann, bob] = labs as [Lab, Lab];
const perSecond = 50;

stage(labs, namespace);
beforeAll(async () => {
  await startToolsPod(namespace, "caller");
});

async function copiesAt(lab: Lab, port: number): Promise<number> {
  return (
    JSON.parse((await lab.sh(`curl -sS --max-time 10 http://127.0.0.1:${port}/count`)).stdout) as { copies: number }
  ).copies;
}

function times(calls: readonly Call[]): { readonly p50: number; readonly p99: number } {
  const sorted = calls.map(({ tookMs }) => tookMs).toSorted((a, b) => a - b);
  return { p50: sorted[Math.floor(sorted.length * 0.5)] ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0 };
}

describe.each(["sidecar", "ephemeral"] as const)("with an agent of kind %s", (agent) => {
  const name = `tapped-${agent}`;
  const place = ["--manager-namespace", managerNamespace, "--agent", agent, "-n", namespace];

  test("two wiretaps, one of them silent, and an intercept are felt by nobody, nor is kill -9 of a daemon", async () => {
    await apply(namespace, ...webApp({ name }));
    await rolledOut(namespace, `deployment/${name}`);
    await using annServer = ann.spawn(fixture("tap-server.mjs", "18401"));
    await using bobServer = bob.spawn(fixture("tap-server.mjs", "18402", "silent"));
    await using bobOwn = bob.spawn(fixture("laptop-server.mjs", "18403", "bob"));
    await Promise.all([annServer, bobServer, bobOwn].map((server) => server.says("listens on")));
    const load = await Load.start({
      namespace,
      target: `http://${name}.${namespace}/`,
      perSecond,
      name: `load-${agent}`,
    });
    const isApp = new RegExp(`^${name}-`);
    const startMs = Date.now();
    await load.answeredBy(isApp, startMs, { inARow: 4 * perSecond });

    const said = await ann.ok("wiretap", `anns-${agent}`, "-w", name, "--port", "18401", ...place);
    expect(said).toMatch(/Wiretap name *: anns-\w+\n *State *: ACTIVE\n/);
    await bob.ok("wiretap", `bobs-${agent}`, "-w", name, "--port", "18402", ...place);
    const bobHeader = ["--http-header", "x-user=bob"];
    await bob.ok("intercept", name, "--port", "18403", ...bobHeader, "-n", namespace, "--agent", agent);
    const tappedMs = Date.now();
    await load.answeredBy(isApp, tappedMs, { inARow: 10 * perSecond, limitMs: 90_000 });
    const who = async (user: string): Promise<string> => {
      const words = ["curl", "-sS", "--max-time", "10", "-H", `x-user: ${user}`, `http://${name}/`];
      return await cluster.kubectl(["exec", "-n", namespace, "caller", "--", ...words]).then(({ stdout }) => stdout);
    };
    expect(await who("bob")).toBe("hello from bob\n");
    expect(await who("eve")).toContain("Hello from the cluster");
    const untilMs = Date.now();
    const copied = await until("copies at ann's laptop", async () => {
      const count = await copiesAt(ann, 18_401);
      return count > 5 * perSecond && count;
    });
    // As many as may be at once: the others are left out and counted.
    const silent = await until("copies at bob's laptop", async () => {
      const count = await copiesAt(bob, 18_402);
      return count >= 256 && count;
    });
    expect(silent).toBe(256);
    const status = await bob.ok("status");
    expect(status).toMatch(/bobs-\w+: .*256 copied, \d+ cut short or left out \(the laptop did not keep up\)/);
    expect(await ann.ok("list", "--wiretaps", "-n", namespace)).toMatch(/anns-\w+[^]*\d+ copied/);
    expect(await ann.ok("why", name, "-n", namespace)).toMatch(/→ application, 200 .*copied to .*anns-\w+ of dev@/);

    for (const pid of ann.pids("daemon")) process.kill(pid, "SIGKILL");
    const killedMs = Date.now();
    await load.answeredBy(isApp, killedMs, { inARow: 10 * perSecond, limitMs: 90_000 });
    await bob.ok("leave", `bobs-${agent}`, "-n", namespace);
    await bob.ok("leave", name, "-n", namespace);
    const leftMs = Date.now();
    await load.answeredBy(isApp, leftMs, { inARow: 2 * perSecond });
    const calls = await load.calls(startMs);
    const between = (fromMs: number, toMs: number) => times(calls.filter(({ atMs }) => atMs >= fromMs && atMs < toMs));
    report(`two wiretaps, one silent, an intercept, kill -9 of a tapping daemon, ${perSecond} requests/s, ${agent}`, {
      calls: calls.length,
      ...countByWho(calls),
      copied,
      copiedToTheSilentOne: silent,
      withoutWiretapsMs: between(startMs, startMs + 4000),
      withWiretapsMs: between(tappedMs, untilMs),
      daemonKilledMs: between(killedMs, leftMs),
    });
    expect(failures(calls, startMs)).toEqual([]);
  });
});
