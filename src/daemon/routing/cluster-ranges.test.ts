// Trap 17: ranges derived once, and a node or a pod that came later was not reached.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { silentLogger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { KubeNode } from "#kube/objects.ts";
import { ClusterRanges, type Ranges } from "./cluster-ranges.ts";

const { signal } = new AbortController();
let server: FakeApiServer;
let scope: Scope;
let clock: FakeClock;
let nodes: KubeNode[];
let serviceCidrs: string[];
let mayListNodes: boolean;
let podIps: string[];

const node = (name: string, podCIDR: string): KubeNode => ({ metadata: { name, uid: name }, spec: { podCIDR } });

beforeEach(async () => {
  server = await new FakeApiServer().listen();
  scope = new Scope(silentLogger);
  clock = new FakeClock();
  nodes = [node("a", "10.244.0.0/24")];
  serviceCidrs = ["10.96.0.0/16"];
  podIps = ["10.244.0.5"];
  mayListNodes = true;
  server.answer = ({ path }, response) => {
    const list = (items: unknown): void => sendJson(response, { metadata: {}, items });
    if (path.endsWith("/servicecidrs")) list([{ metadata: {}, spec: { cidrs: serviceCidrs } }]);
    else if (path.endsWith("/nodes") && mayListNodes) list(nodes);
    else if (path === "/api/v1/namespaces/mine/pods" || (path === "/api/v1/pods" && mayListNodes)) {
      list(podIps.map((podIP) => ({ metadata: {}, spec: { containers: [] }, status: { podIP } })));
    } else sendStatus(response, 403, "Forbidden", "no");
  };
});
afterEach(async () => {
  await scope[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

async function discover(): Promise<{ ranges: ClusterRanges; seen: Ranges[] }> {
  const found = await ClusterRanges.discover(
    {
      kube: server.open(),
      visible: ["mine"],
      podIps: ["10.244.9.9"],
      apiServiceHost: "10.96.0.1",
      clock,
      log: silentLogger,
    },
    signal,
  );
  const seen: Ranges[] = [];
  const onChange = (more: Ranges): Promise<void> => {
    seen.push(more);
    return Promise.resolve();
  };
  found.follow(found.current, onChange, scope);
  return { ranges: found, seen };
}

describe("the cluster's ranges", () => {
  test("are the service range and the nodes' pod ranges", async () => {
    const { ranges } = await discover();
    expect(ranges.current).toEqual({ services: ["10.96.0.0/16"], pods: ["10.244.0.0/24"], complete: true });
  });
  test("grow with a node, and do not shrink when one goes", async () => {
    const { ranges, seen } = await discover();
    await ranges.onNodes(nodes, signal);
    nodes.push(node("b", "10.245.0.0/24"));
    await ranges.onNodes(nodes, signal);
    expect(seen.at(-1)?.pods).toEqual(["10.244.0.0/24", "10.245.0.0/24"]);
    nodes.shift();
    podIps = ["10.245.0.5"];
    await ranges.onNodes(nodes, signal);
    expect(ranges.current.pods).toEqual(["10.244.0.0/24", "10.245.0.0/24"]);
    expect(seen).toHaveLength(1);
  });
  test("are not looked for because of a node's report that says nothing new", async () => {
    const { ranges } = await discover();
    await ranges.onNodes(nodes, signal);
    const before = server.requests.length;
    await ranges.onNodes([node("a", "10.244.0.0/24")], signal);
    expect(server.requests.length).toBe(before);
  });
  test("without a right to nodes are what visible pods show, and grow with an answer outside of them", async () => {
    mayListNodes = false;
    const { ranges, seen } = await discover();
    expect(ranges.current).toEqual({
      services: ["10.96.0.0/16"],
      pods: ["10.244.0.0/24", "10.244.9.0/24"],
      complete: false,
    });
    podIps.push("10.250.1.1");
    await ranges.lookFor(["10.250.1.1"], signal); // too soon
    expect(seen).toEqual([]);
    await clock.advance(10_000);
    await ranges.lookFor(["10.250.1.1"], signal);
    expect(seen.at(-1)?.pods).toContain("10.250.1.0/24");
    const before = server.requests.length;
    await clock.advance(10_000);
    await ranges.lookFor(["10.250.1.1"], signal);
    expect(server.requests.length).toBe(before);
    const many = Array.from({ length: 999 }, (_, index) => `10.9.${index >> 8}.${index & 255}`);
    await ranges.lookFor(many, signal);
    const then = server.requests.length;
    expect(then).toBeGreaterThan(before);
    await clock.advance(10_000);
    await ranges.lookFor(["10.250.9.9"], signal); // whatever names lead to must not have the nodes listed for ever
    expect(server.requests.length).toBe(then);
  });
  test("are looked for every few minutes", async () => {
    const { ranges } = await discover();
    serviceCidrs.push("10.97.0.0/16", "fd00:96::/112");
    const grown = new Promise<Ranges>((resolve) => {
      ranges.follow(ranges.current, (more) => Promise.resolve(resolve(more)), scope);
    });
    await clock.advance(299_000);
    expect(ranges.ageMs).toBe(299_000);
    await clock.advance(1000);
    expect((await grown).services).toEqual(["10.96.0.0/15", "fd00:96::/112"]);
    expect(ranges.ageMs).toBe(0);
  });
});
