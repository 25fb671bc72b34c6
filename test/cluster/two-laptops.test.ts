// TARGETS' row "two laptops": attaching to the same workload at the same moment makes one rollout at most, and a release
// made meanwhile stays when everything is uninstalled.
import { describe, expect, test } from "vitest";
import { countOf, patience } from "#test/rounds.ts";
import { Lab, apply, field, fixture, kubectl, rolledOut, webApp, report } from "./lab.ts";
import { stage } from "./stage.ts";

const namespace = "it-two";
const labs = [1, 2].map((laptop) => new Lab({ managerNamespace: "it-manager", laptop: laptop as 1 | 2 }));
const [one, two] = labs as [Lab, Lab];
const rounds = countOf(2, 20);
const timeout = patience(180_000, 2, 20);

stage(labs, namespace);

const twoPorts = {
  ports: [
    { name: "http", containerPort: 8000 },
    { name: "admin", containerPort: 8001 },
  ],
  servicePorts: [
    { name: "http", port: 80, targetPort: "http" },
    { name: "admin", port: 81, targetPort: "admin" },
  ],
} as const;

async function replicaSets(name: string): Promise<number> {
  return (await kubectl("get", "rs", "-n", namespace, "-l", `app=${name}`, "-o", "name")).trim().split("\n").length;
}

describe("two laptops that attach at the same moment", () => {
  test(
    `to the same port: one gets it, the other the conflict by name, one rollout, ${rounds} rounds`,
    { timeout },
    async () => {
      await Promise.all(labs.map((lab) => lab.ok("connect", "-n", namespace)));
      for (let round = 1; round <= rounds; round += 1) {
        const name = `same${round}`;
        await apply(namespace, ...webApp({ name }));
        await rolledOut(namespace, `deployment/${name}`);
        const startMs = performance.now();
        const results = await Promise.all(labs.map((lab) => lab.cli(["intercept", name, "--port", "18200"])));
        report("two laptops, same port", { round, tookMs: Math.round(performance.now() - startMs) });
        expect(results.map(({ code }) => code).toSorted((a, b) => a - b)).toEqual([0, 1]);
        const loser = results.find(({ code }) => code === 1);
        expect(loser?.stderr).toMatch(
          /^telepresence: error: port 8000\/tcp of Deployment same\d+ is intercepted by dev@\S+ \(intercept "same\d+", since \d+ s\); ask dev@\S+ to leave it\n$/,
        );
        expect(await replicaSets(name)).toBe(2); // before and after: one rollout
        await Promise.all(labs.map((lab) => lab.cli(["leave", name])));
      }
    },
  );
  test(`to two ports of one workload: both have theirs, one rollout, ${rounds} rounds`, { timeout }, async () => {
    await using serverOne = one.spawn(fixture("laptop-server.mjs", "18201", "first"));
    await using serverTwo = two.spawn(fixture("laptop-server.mjs", "18201", "second"));
    await Promise.all([serverOne.says("listens on"), serverTwo.says("listens on")]);
    for (let round = 1; round <= rounds; round += 1) {
      const name = `both${round}`;
      await apply(namespace, ...webApp({ name, ...twoPorts }));
      await rolledOut(namespace, `deployment/${name}`);
      const startMs = performance.now();
      await Promise.all([
        one.ok("intercept", name, "--port", "18201:http"),
        two.ok("intercept", name, "--port", "18201:admin"),
      ]);
      report("two laptops, two ports", { round, tookMs: Math.round(performance.now() - startMs) });
      expect(await replicaSets(name)).toBe(2);
      expect((await one.sh(`curl -sS --max-time 10 http://${name}/`)).stdout).toBe("hello from first\n");
      expect((await one.sh(`curl -sS --max-time 10 http://${name}:81/`)).stdout).toBe("hello from second\n");

      await kubectl("set", "env", "-n", namespace, `deployment/${name}`, `RELEASE=${round}`);
      await kubectl("scale", "-n", namespace, `deployment/${name}`, "--replicas=2");
      await rolledOut(namespace, `deployment/${name}`);
      await one.ok("uninstall", "--agent", name, "-n", namespace);
      await rolledOut(namespace, `deployment/${name}`);
      const spec = await field(namespace, `deployment/${name}`, ".spec");
      expect(spec).toContain(`{"name":"RELEASE","value":"${round}"}`);
      expect(spec).toContain('"replicas":2');
      expect(spec).not.toContain("traffic-agent");
      await two.cli(["leave", name]);
    }
  });
});
