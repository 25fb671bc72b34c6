import { expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Pod } from "#kube/objects.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { explainByPass, findServicePods } from "./by-pass.ts";

const { signal } = new AbortController();
const redirected: AgentPort = {
  agentPort: 24_900,
  containerPort: 8080,
  containerName: "app",
  protocol: "tcp",
  takeover: "redirect",
};
const named: AgentPort = { ...redirected, takeover: "name" };

/** The pod `web-1` on a node of Cilium, which may be read or not. */
async function explain(containers: readonly string[], port: AgentPort, readable = true): Promise<string> {
  await using server = await new FakeApiServer().listen();
  const pod: Pod = {
    metadata: { name: "web-1" },
    spec: { nodeName: "n", containers: containers.map((name) => ({ name })) },
  };
  const node = { metadata: { name: "n", annotations: { "network.cilium.io/ipv4-pod-cidr": "10.0.0.0/24" } } };
  server.answer = ({ path }, response) => {
    if (path.endsWith("/pods")) sendJson(response, { items: [pod], metadata: {} });
    else if (readable) sendJson(response, node);
    else sendStatus(response, 403, "Forbidden", "no nodes for you");
  };
  return await explainByPass(server.open({ namespace: "shop" }), { namespace: "shop", podName: "web-1", port }, signal);
}

test("names the mesh, and the port that it is to leave alone", async () => {
  expect(await explain(["app", "linkerd-proxy"], redirected)).toBe(
    'Linkerd (container linkerd-proxy) takes the port before the agent: annotate the workload\'s pods with config.linkerd.io/skip-inbound-ports: "8080", or name the port in the service and use --agent sidecar',
  );
  expect(await explain(["app", "linkerd-proxy"], named)).toBe(
    'Linkerd (container linkerd-proxy) takes the port before the agent: annotate the workload\'s pods with config.linkerd.io/skip-inbound-ports: "24900"',
  );
  expect(await explain(["app", "osm-init"], named)).toContain("Open Service Mesh (container osm-init)");
});

test("names the node's network plugin where there is no mesh, if nodes may be read", async () => {
  expect(await explain(["app"], redirected)).toBe(
    "something in the pod or the node's network (Cilium) takes the port before the agent: name the port in the service and use --agent sidecar",
  );
  expect(await explain(["app"], named, false)).toBe(
    "something in the pod or the node's network takes the port before the agent",
  );
});

test("a service leads to all pods of its selector that have not ended", async () => {
  await using server = await new FakeApiServer().listen();
  const pods = ["Running", "Pending", "Succeeded", "Failed"].map((phase) => ({
    metadata: { uid: phase },
    status: { phase },
  }));
  let selector: object | undefined = { app: "web" };
  server.answer = ({ path, query }, response) => {
    const web = { metadata: { name: "web" }, spec: { selector } };
    if (path.endsWith("/services")) sendJson(response, { items: [web], metadata: {} });
    else sendJson(response, { items: query.get("labelSelector") === "app=web" ? pods : [], metadata: {} });
  };
  const kube = server.open({ namespace: "shop" });
  expect(await findServicePods(kube, { namespace: "shop", service: "web" }, signal)).toEqual(["Running", "Pending"]);
  selector = undefined;
  await expect(findServicePods(kube, { namespace: "shop", service: "web" }, signal)).rejects.toThrow(/no selector/);
});
