// Story of our own: nodes that joined the cluster after the installation could be dialled through the manager.
import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { ConfigMap, KubeNode } from "#kube/objects.ts";
import { buildManager } from "./manifest.ts";
import { managerSelector, nodeListName } from "./marks.ts";
import { keepNodeList, removeNodeList } from "./node-list.ts";

const node = (name: string, address: string): KubeNode => ({
  metadata: { name, uid: name, resourceVersion: "11" },
  status: {
    addresses: [
      { type: "InternalIP", address },
      { type: "Hostname", address: name },
    ],
  },
});

class Cluster implements AsyncDisposable {
  readonly server = new FakeApiServer();
  readonly ending = new AbortController();
  list: ConfigMap | undefined;
  mayWrite = true;
  mayWatch = true;
  /** Somebody else writes first, this often. */
  conflicts = 0;
  #watch: ServerResponse | undefined;
  readonly #waiting = new Set<() => void>();

  async keep(): Promise<void> {
    await this.server.listen();
    this.server.answer = (request, response) => {
      this.#answer(request, response);
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
    };
    await keepNodeList(this.server.open(), { namespace: "telepresence", log: silentLogger }, this.ending.signal);
  }
  /** Looked at after each request: no time of its own, which a busy machine would not keep. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }
  async join(added: KubeNode): Promise<void> {
    await this.until(() => this.#watch !== undefined); // what happens before is in no watch
    this.#watch?.write(`${JSON.stringify({ type: "ADDED", object: added })}\n`);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.ending.abort();
    await this.server[Symbol.asyncDispose]();
  }

  #answer({ path, method, query, body }: FakeRequest, response: ServerResponse): void {
    if (path.endsWith("selfsubjectaccessreviews")) sendJson(response, { status: { allowed: this.mayWatch } });
    else if (query.get("watch") !== null) this.#watch = response.writeHead(200);
    else if (path.endsWith("/nodes")) {
      sendJson(response, { metadata: { resourceVersion: "10" }, items: [node("a", "10.0.0.1")] });
    } else if (method === "GET") this.#send(response);
    else if (!this.mayWrite) sendStatus(response, 403, "Forbidden", "no");
    else if (this.conflicts-- > 0) sendStatus(response, 409, "Conflict", "changed");
    else if (method === "DELETE") {
      this.list = undefined;
      sendJson(response, {});
    } else {
      this.list = { ...this.list, ...(JSON.parse(body) as ConfigMap) };
      this.#send(response);
    }
  }
  #send(response: ServerResponse): void {
    if (this.list === undefined) sendStatus(response, 404, "NotFound", "none");
    else sendJson(response, { ...this.list, metadata: { ...this.list.metadata, labels: managerSelector } });
  }
}

test("the list is made, and follows nodes that join", async () => {
  await using cluster = new Cluster();
  const keeping = cluster.keep();
  await cluster.until(() => cluster.list?.data?.["nodes"] === "10.0.0.1");
  expect(cluster.list?.metadata).toMatchObject({ name: nodeListName, labels: managerSelector });
  cluster.conflicts = 2;
  await cluster.join(node("b", "10.0.0.2"));
  await cluster.until(() => cluster.list?.data?.["nodes"] === "10.0.0.1\n10.0.0.2");
  await removeNodeList(cluster.server.open(), "telepresence", cluster.ending.signal);
  expect(cluster.list).toBeUndefined();
  await cluster.join(node("c", "10.0.0.3"));
  await cluster.until(() => cluster.server.requests.at(-1)?.method === "GET"); // looked, and made none
  cluster.ending.abort();
  await keeping;
  expect(cluster.list).toBeUndefined();
});

test("who may only list the nodes tells them once", async () => {
  await using cluster = new Cluster();
  cluster.mayWatch = false;
  await cluster.keep();
  expect(cluster.list?.data).toEqual({ nodes: "10.0.0.1" });
});

test("who may not write it leaves it, in silence", async () => {
  await using cluster = new Cluster();
  cluster.mayWrite = false;
  await cluster.keep();
  expect(cluster.list).toBeUndefined();
});

test("the manager's pod mounts it, also while there is none", () => {
  const image = { image: "telepresence/telepresence:0.1.0" };
  const { spec } = buildManager({ namespace: "n", image, version: "1", env: {} }).spec.template;
  expect(spec.volumes).toEqual([{ name: "nodes", configMap: { name: nodeListName, optional: true } }]);
  expect(spec.containers[0]?.volumeMounts).toEqual([{ name: "nodes", mountPath: "/etc/telepresence", readOnly: true }]);
  expect(JSON.stringify(spec)).toContain('{"name":"TELEPRESENCE_NODES_FILE","value":"/etc/telepresence/nodes"}');
});
