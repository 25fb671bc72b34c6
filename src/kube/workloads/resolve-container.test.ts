// A queue consumer has no service, and its pods no ports: its environment is wanted all the same.
import { describe, expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { KubeObject, Service, Workload } from "#kube/objects.ts";
import { resolveContainer, type ContainerQuery } from "./resolve-container.ts";

const { signal } = new AbortController();

function workload(name: string, containers: readonly string[], annotations: Record<string, string> = {}): Workload {
  const labels = { app: name };
  const spec = { containers: containers.map((item) => ({ name: item })), hostNetwork: name === "on-node" };
  return {
    metadata: { name, namespace: "n" },
    spec: { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels, annotations }, spec } },
  };
}
const marked = { "kubectl.kubernetes.io/default-container": "worker" };
const objects: Readonly<Record<string, readonly KubeObject[]>> = {
  deployments: [
    workload("consumer", ["consumer"]),
    workload("two", ["proxy", "worker"]),
    workload("marked", ["proxy", "worker"], marked),
    workload("on-node", ["main"]),
  ],
  services: [
    {
      metadata: { name: "front", namespace: "n" },
      spec: { selector: { app: "two" }, ports: [{ port: 80 }] },
    } as Service,
    // leads elsewhere: where no port matters the workload of the name is meant
    { metadata: { name: "consumer", namespace: "n" }, spec: { selector: { app: "two" }, ports: [] } } as Service,
  ],
};

async function resolve(query: Partial<ContainerQuery>): Promise<unknown> {
  await using server = await new FakeApiServer().listen();
  server.answer = ({ path }, response) => {
    const [plural = "", name] = path.replace(/^.*namespaces\/n\//, "").split("/");
    const items = objects[plural] ?? [];
    if (name === undefined) return sendJson(response, { metadata: {}, items });
    const found = items.find(({ metadata }) => metadata.name === name);
    return found === undefined ? sendStatus(response, 404, "NotFound", "not found") : sendJson(response, found);
  };
  const options = { signal, withoutAgent: (object: Workload) => object };
  const wanted = { namespace: "n", name: "consumer", ...query };
  const { workload: found, containerName, others } = await resolveContainer(server.open(), wanted, options);
  return { of: `${found.kind} ${found.name}`, containerName, others };
}

describe("resolveContainer()", () => {
  test.each([
    [{ name: "consumer" }, { of: "Deployment consumer", containerName: "consumer", others: [] }],
    [{ name: "front" }, { of: "Deployment two", containerName: "proxy", others: ["worker"] }],
    [
      { name: "two", container: "worker" },
      { of: "Deployment two", containerName: "worker", others: [] },
    ],
    [{ name: "marked" }, { of: "Deployment marked", containerName: "worker", others: ["proxy"] }],
    [{ name: "on-node" }, { of: "Deployment on-node", containerName: "main", others: [] }],
  ])("%o", async (query, expected) => {
    expect(await resolve(query)).toEqual(expected);
  });
  test("names the containers that there are, and what is not there", async () => {
    await expect(resolve({ container: "web" })).rejects.toMatchObject({
      message: 'deployment consumer has no container "web"',
      hint: "choose with --container: consumer",
    });
    await expect(resolve({ name: "nobody" })).rejects.toThrow('no service and no workload "nobody" in namespace n');
  });
});
