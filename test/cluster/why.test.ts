// Who got a request and why, asked of the agents themselves; and other people's intercepts, ended by those whom the API
// server lets: by a program in the agent's container, in a sidecar and in an ephemeral container alike.
import { afterAll, beforeAll, expect, test } from "vitest";
import * as cluster from "#testbed/cluster.ts";
import { Lab, apply, fixture, kubectl, report, rolledOut, until, webApp } from "./lab.ts";
import { stage } from "./stage.ts";
import { startToolsPod } from "./tools-pod.ts";

const manager = "it-why-manager";
const namespace = "it-why";
const ann = new Lab({ managerNamespace: manager, laptop: 1 });
const annEphemeral = new Lab({ managerNamespace: manager, laptop: 1, agent: "ephemeral" });
const bob = new Lab({ managerNamespace: manager, laptop: 2 });
const small = new Lab({ managerNamespace: manager, laptop: 2, clusterUser: "small" });

stage([ann, bob], namespace);
beforeAll(async () => {
  await apply(namespace, ...webApp({ name: "shop" }), ...webApp({ name: "bare" }));
  await startToolsPod(namespace, "caller");
  await rolledOut(namespace, "deployment/shop", "deployment/bare");
  await ann.ok("connect", "-n", namespace);
  await bob.ok("connect", "-n", namespace);
});
afterAll(async () => {
  await ann.cli(["uninstall", "--everything", "--yes"]);
});

async function call(...words: readonly string[]): Promise<void> {
  await cluster.kubectl(["exec", "-n", namespace, "caller", "--", "curl", "-sS", "--max-time", "10", ...words]);
}

interface Why {
  readonly requests: readonly {
    readonly method: string;
    readonly path: string;
    readonly answered_by: string;
    readonly status: number;
    readonly taken_by?: { readonly name: string };
    readonly refused_by: readonly { readonly conditions: readonly unknown[] }[];
  }[];
  readonly verdicts: readonly { readonly goes_to: string }[];
}

test("why tells who got the requests of a pod of the cluster, and what a header's typo did", async () => {
  await using server = ann.spawn(fixture("laptop-server.mjs", "18901", "ann"));
  await server.says("listens on");
  await ann.ok("intercept", "shop", "--port", "18901", "--http-header", "x-user=ann");
  await call("-H", "x-user: ann", "http://shop/cart?coupon=secret");
  await call("-H", "x-usr: ann", "http://shop/typo");
  const [why] = await ann.json<readonly [Why]>("why", "shop");
  const lines = why.requests.filter(({ path }) => ["/cart", "/typo"].includes(path));
  report("why", lines);
  expect(lines).toMatchObject([
    { method: "GET", path: "/cart", answered_by: "laptop", status: 200, taken_by: { name: "shop" }, refused_by: [] },
    {
      path: "/typo",
      answered_by: "application",
      status: 200,
      refused_by: [{ conditions: [{ reason: 'request.headers["x-user"] is absent' }] }],
    },
  ]);
  expect(JSON.stringify(why)).not.toContain("secret");
  // A team mate asks as well, in text.
  const text = await bob.ok("why", "shop");
  expect(text).toMatch(
    /shop-\S+ {2}GET \/cart → laptop of dev@\S+, 200 in \d+ m?s: intercept shop of dev@\S+ matches\n/,
  );
  expect(await ann.ok("why", "shop", "--verbose")).toContain("GET /cart?coupon=secret");
});

test("why tells what would become of a request that nobody has sent", async () => {
  const [ours] = await bob.json<readonly [Why]>("why", "shop", "GET", "/cart", "X-User: ann");
  expect(ours.verdicts).toMatchObject([{ goes_to: "laptop" }]);
  expect(await bob.ok("why", "shop", "GET", "/cart", "x-user: bob")).toMatch(
    /^GET \/cart to Deployment shop, port 8000, goes to the application in pod shop-\S+\n.*: does not match\n +request\.headers\["x-user"\] == "ann" is false\n$/,
  );
  const unknown = await bob.cli(["why", "shp"]);
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toContain("did you mean shop?");
});

test("revoke is not for those who may only look and forward ports", async () => {
  await cluster.grantSmall(namespace);
  await cluster.grantSmall(manager);
  await bob.quit();
  expect((await small.cli(["connect", "-n", namespace])).code).toBe(0);
  expect((await small.cli(["why", "shop"])).stdout).toContain("GET /cart");
  const refused = await small.cli(["revoke", "shop"]);
  report("revoke without the right", refused.stderr);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/ending somebody else's intercept needs the right .*pods\/exec/);
  expect(await ann.ok("list", "-i")).toContain("ACTIVE");
  await small.quit();
  await bob.ok("connect", "-n", namespace);
});

for (const [lab, name] of [
  [ann, "shop"],
  [annEphemeral, "bare"],
] as const) {
  test(`revoke ends another's intercept of ${name}, its command too, and everybody is told`, async () => {
    await using server = lab.spawn(fixture("laptop-server.mjs", "18902", "ann"));
    await server.says("listens on");
    await lab.cli(["leave", name]);
    await using owner = lab.start(["intercept", name, "--port", "18902", "--", "sleep", "1000"]);
    await until("the intercept", async () => (await bob.ok("list", "-i")).includes(`${name}`));
    await until("its agents", async () => (await bob.ok("list", "-i")).includes("ACTIVE"));
    const beforeMs = performance.now();
    const said = await bob.ok("revoke", name);
    report("revoke", { name, tookMs: Math.round(performance.now() - beforeMs) });
    expect(said).toMatch(new RegExp(`^Ended the intercept ${name} of dev@\\S+ on Deployment ${name}, since `));
    await owner.says(/Warning: the intercept \S+ was revoked by dev@\S+ at \d\d:\d\d; ending sleep/);
    expect(await bob.ok("list", "-i")).toBe("No intercepts\n");
    expect(await lab.ok("status")).toMatch(/\(removed: was revoked by dev@/);
    const events = await kubectl("get", "events", "-n", namespace, "-o", "jsonpath={.items[*].message}");
    expect(events).toContain(`intercept ${name} of dev@`);
    expect(events).toContain("was revoked by dev@");
  });
}
