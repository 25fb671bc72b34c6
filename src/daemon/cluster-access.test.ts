// Regressions: `list` and `list --agents` denied the agents that run in the pods and are in no template.
import { describe, expect, test } from "vitest";
import { planEphemeral } from "#installer/ephemeral.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Pod, Service, Workload } from "#kube/objects.ts";
import { KubeAccess } from "./cluster-access.ts";
import type { WorkloadPod } from "./intercepts/workload-access.ts";
import { waitUntilEnded } from "./retire-agents.ts";

const { signal } = new AbortController();
const image = { image: "registry.example/telepresence:1.2.3" };
const labels = { app: "hello" };
const service: Service = {
  metadata: { name: "hello", namespace: "shop" },
  spec: { selector: labels, ports: [{ port: 80, targetPort: 8000 }] },
};
const workload: Workload = {
  metadata: { name: "hello", namespace: "shop" },
  spec: {
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: "a" }] } },
  },
};
const bare: Pod = {
  metadata: {
    name: "hello-1",
    namespace: "shop",
    uid: "u",
    labels,
    ownerReferences: [{ apiVersion: "apps/v1", kind: "ReplicaSet", name: "hello-7d9", uid: "r", controller: true }],
  },
  spec: { containers: [{ name: "a" }] },
};
const agent = planEphemeral(bare, {
  workload: { kind: "Deployment", name: "hello", namespace: "shop" },
  services: [service],
  image,
});

function podWith(state: object): Pod {
  const status = { name: agent.name, ready: false, restartCount: 0, state };
  return {
    ...bare,
    spec: { ...bare.spec, ephemeralContainers: [agent] },
    status: { ephemeralContainerStatuses: [status] },
  };
}

// `uninstall --everything` said a second time that the agent ends, because the first did not wait until it had.
test("waitUntilEnded() looks until the agent has ended", async () => {
  await using server = await new FakeApiServer().listen();
  const states = [{ running: { startedAt: "now" } }, { terminated: { exitCode: 0 } }];
  server.answer = (_request, response) => sendJson(response, podWith(states.shift() ?? {}));
  const ref = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
  const pod = { namespace: "shop", podName: "hello-1", workload: ref, ...image };
  await waitUntilEnded(server.open(), pod, signal);
  expect(states).toEqual([]);
});

function openAccess(server: FakeApiServer): KubeAccess {
  return new KubeAccess({ kube: server.open({ namespace: "shop" }), managerNamespace: "telepresence", image });
}

async function list(pods: readonly Pod[] | undefined): Promise<readonly (string | undefined)[]> {
  await using server = await new FakeApiServer().listen();
  server.answer = ({ path }, response) => {
    const kind = path.split("/").at(-1) ?? "";
    const lists: Record<string, readonly object[] | undefined> = { deployments: [workload], services: [service], pods };
    const items = kind in lists ? lists[kind] : [];
    if (items === undefined) sendStatus(response, 403, "Forbidden", "no pods for you");
    else sendJson(response, { items, metadata: { resourceVersion: "1" } });
  };
  const access = openAccess(server);
  return (await access.listWorkloads("shop", signal)).map((item) => item.agentVersion);
}

describe("listWorkloads()", () => {
  test("shows an ephemeral agent that runs, and not one that has ended", async () => {
    expect(await list([podWith({ running: { startedAt: "now" } })])).toEqual(["1.2.3"]);
    expect(await list([podWith({ terminated: { exitCode: 0 } })])).toEqual([undefined]);
  });
  // `uninstall` right after `intercept` and `leave` found no agent: the kubelet had not told yet that it runs.
  test("shows one that the kubelet has not told of yet", async () => {
    expect(await list([podWith({ waiting: { reason: "ContainerCreating" } })])).toEqual(["1.2.3"]);
  });
  // `list -n nope` said "No Workloads".
  test("names a namespace that does not exist", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = ({ path }, response) => {
      if (path.endsWith("/namespaces/nope")) sendStatus(response, 404, "NotFound", "no such namespace");
      else sendJson(response, { items: [], metadata: { name: "shop", resourceVersion: "1" } });
    };
    const access = openAccess(server);
    await expect(access.listWorkloads("nope", signal)).rejects.toMatchObject({
      code: "namespace_missing",
      message: "namespace nope does not exist",
    });
    expect(await access.listWorkloads("shop", signal)).toEqual([]);
  });
  test("names the services that select a workload", async () => {
    await using server = await new FakeApiServer().listen();
    const other = { ...service, metadata: { name: "other" }, spec: { ...service.spec, selector: { app: "other" } } };
    server.answer = ({ path }, response) => {
      const kind = path.split("/").at(-1) ?? "";
      const lists: Record<string, readonly object[] | undefined> = {
        deployments: [workload],
        services: [other, service],
      };
      sendJson(response, { items: lists[kind] ?? [], metadata: { resourceVersion: "1" } });
    };
    const access = openAccess(server);
    expect((await access.listWorkloads("shop", signal)).map((item) => item.services)).toEqual([["hello"]]);
  });
  test("goes without where pods may not be listed", async () => {
    expect(await list(undefined)).toEqual([undefined]);
  });
});

// A pod that has just been made is on its way to its node: what was read before the patch made its agent start after the
// application instead of beside it.
describe("attach()", () => {
  const ref = { kind: "Deployment", name: "hello", namespace: "shop" } as const;
  const needed = [{ containerPort: 8000, protocol: "tcp" }] as const;
  function answerWith(server: FakeApiServer): void {
    server.answer = ({ method, path, query }, response) => {
      const kind = path.split("/").at(-1) ?? "";
      const items = { pods: [bare], services: [service] }[kind];
      if (method === "PATCH") sendJson(response, podWith({}));
      else if (query.get("watch") !== null)
        response.writeHead(200, { "Content-Type": "application/json" }).flushHeaders();
      else if (items !== undefined) sendJson(response, { items, metadata: { resourceVersion: "1" } });
      else sendJson(response, kind === "hello" ? workload : bare);
    };
  }
  const asked = (server: FakeApiServer): readonly string[] =>
    server.requests.map(({ method, path }) => `${method} ${path.split("/").at(-1)}`);

  test("asks for nothing but the agent where pods and services are watched", async () => {
    await using server = await new FakeApiServer().listen();
    answerWith(server);
    const access = openAccess(server);
    const over = new AbortController();
    const seen = Promise.withResolvers<readonly WorkloadPod[]>();
    const following = access.followServices("shop", over.signal).catch(() => undefined);
    await expect.poll(() => asked(server)).toEqual(["GET services", "GET services"]); // the list, and the watch
    const watching = access.watchPods(ref, seen.resolve, over.signal).catch(() => undefined);
    const [pod] = await seen.promise;
    await expect.poll(() => asked(server).filter((text) => text === "GET pods")).toHaveLength(2);
    const before = server.requests.length;
    await access.attach(ref, pod as WorkloadPod, needed, signal);
    expect(asked(server).slice(before)).toEqual(["PATCH ephemeralcontainers"]);
    const patch = JSON.parse(server.requests.at(-1)?.body ?? "") as Pod;
    expect(patch.spec.ephemeralContainers).toEqual([agent]);
    over.abort();
    await Promise.all([following, watching]);
    // … and asks again where nothing is watched any more
    await access.attach(ref, { ...(pod as WorkloadPod) }, needed, signal);
    expect(asked(server).slice(before + 1)).toEqual(["GET services", "GET hello-1", "PATCH ephemeralcontainers"]);
  });
});
