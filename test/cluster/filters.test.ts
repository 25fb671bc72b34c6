// Personal intercepts on a real workload: callers in the cluster reach a laptop only with the requests that are its
// people's; the application answers all others, and everything after `leave`.
import { afterAll, beforeAll, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, fixture, report, rolledOut, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const namespace = "it-filters";
const labs = [1, 2].map((laptop) => new Lab({ managerNamespace: "it-filters-manager", laptop: laptop as 1 | 2 }));
const [ann, bob] = labs as [Lab, Lab];
const name = "shop";

stage(labs, namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name }));
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, `deployment/${name}`);
  await ann.ok("connect", "-n", namespace);
  await bob.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await ann.cli(["uninstall", "--everything"]);
});

/** All of these by one curl, which keeps its connection: who answered, in order. */
async function call(...requests: readonly (readonly string[])[]): Promise<readonly string[]> {
  const words = requests.flatMap((flags, index) => {
    const next = index === 0 ? [] : ["--next"];
    return [...next, "-sS", "--max-time", "10", "-w", "##", ...flags, `http://${name}/`];
  });
  const { stdout } = await cluster.kubectl(["exec", "-n", namespace, "caller", "--", "curl", ...words]);
  const whose = stdout.split("##").map((answer) => /hello from (ann|bob|the cluster)/i.exec(answer)?.[1] ?? answer);
  return whose.slice(0, -1).map((who) => (who === "the cluster" ? "app" : who));
}
const user = (who: string): readonly string[] => ["-H", `x-user: ${who}`];
const plain: readonly string[] = [];

test("two people each get the requests of their own, the application the rest", async () => {
  await using annServer = ann.spawn(fixture("laptop-server.mjs", "18301", "ann"));
  await using bobServer = bob.spawn(fixture("laptop-server.mjs", "18301", "bob"));
  await Promise.all([annServer.says("listens on"), bobServer.says("listens on")]);
  const said = await ann.ok("intercept", name, "--port", "18301", "--http-header", "x-user=ann");
  expect(said).toMatch(/Intercepting\s*: HTTP requests that match\n +request\.headers\["x-user"\] == "ann"\n/);

  const overlapping = await bob.cli(["intercept", name, "--port", "18301", "--http-path-prefix", "/"]);
  expect(overlapping.code).toBe(1);
  expect(overlapping.stderr).toMatch(/is intercepted by dev@\S+ \(intercept "shop", since .*x-user"\] == "ann"/);
  const personal = await bob.ok("intercept", name, "--port", "18301", "--http-header", "auto", "--allow-overlap");
  const [, header = ""] = /Header to send\s*: (x-telepresence-intercept-id: \S+)/.exec(personal) ?? [];
  expect(header).toMatch(/:shop$/);

  expect(await call(plain)).toEqual(["app"]);
  let failed = 0;
  const rounds = 20;
  for (let round = 0; round < rounds; round += 1) {
    const baggage = ["-H", `baggage: a=b,${header.replace(": ", "=")}`];
    const answers = await call(user("ann"), plain, ["-H", header], user("hans"), baggage, user("ann"));
    if (answers.join() === "ann,app,bob,app,bob,ann") continue;
    failed += 1;
    report("answers of a failed round", answers);
  }
  report("requests chosen by filter", { requests: rounds * 6, failedRounds: failed });
  expect(failed).toBe(0);

  expect(await ann.ok("list")).toContain('request.headers["x-user"] == "ann"');
  await ann.ok("leave", name);
  expect(await call(user("ann"), ["-H", header])).toEqual(["app", "bob"]);
  await bob.ok("leave", name);
  expect(await call(user("ann"), ["-H", header])).toEqual(["app", "app"]);
});
