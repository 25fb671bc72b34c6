import { describe, expect, test } from "vitest";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Kube } from "#kube/client.ts";
import { ensureDirectService, findDirectService, removeDirectService } from "./direct-service.ts";
import { managerSelector } from "./marks.ts";

const { signal } = new AbortController();
interface Stored {
  metadata: { labels?: object; annotations?: object; uid?: string };
  spec: { type: string; ports: object[] };
  status?: object;
}

async function withService(
  run: (kube: Kube, cluster: { service: Stored | undefined; refused: boolean; asked: string[] }) => Promise<void>,
): Promise<void> {
  await using server = await new FakeApiServer().listen();
  const cluster = { service: undefined as Stored | undefined, refused: false, asked: [] as string[] };
  server.answer = ({ method, path, body }: FakeRequest, response) => {
    cluster.asked.push(`${method} ${path}`);
    if (cluster.refused) sendStatus(response, 403, "Forbidden", 'User "alice" cannot get resource "services"');
    else if (method === "POST") sendJson(response, (cluster.service = JSON.parse(body) as Stored), 201);
    else if (cluster.service === undefined) sendStatus(response, 404, "NotFound", "none");
    else if (method === "PATCH") {
      const { metadata, spec } = JSON.parse(body) as Stored;
      cluster.service.metadata.annotations = { ...cluster.service.metadata.annotations, ...metadata.annotations };
      cluster.service.spec.type = spec.type;
      sendJson(response, cluster.service);
    } else {
      sendJson(response, cluster.service);
      if (method === "DELETE") cluster.service = undefined;
    }
  };
  await run(server.open(), cluster);
}

describe("the service of the manager's direct port", () => {
  test("is made as it is wished for, changed, found and removed", () =>
    withService(async (kube, cluster) => {
      expect(await findDirectService(kube, "m", signal)).toBeUndefined();
      await ensureDirectService(kube, "m", "nodeport", signal);
      expect(cluster.service).toMatchObject({
        metadata: { name: "traffic-manager-direct", namespace: "m", labels: managerSelector },
        spec: { type: "NodePort", selector: managerSelector, ports: [{ port: 8444, targetPort: 8444 }] },
      });
      cluster.service!.spec.ports = [{ port: 8444, nodePort: 30_444 }];
      expect(await findDirectService(kube, "m", signal)).toEqual({ places: [], nodePort: 30_444 });
      await ensureDirectService(kube, "m", "loadbalancer", signal);
      cluster.service!.status = { loadBalancer: { ingress: [{ ip: "203.0.113.9" }, { hostname: "lb.example" }] } };
      expect((await findDirectService(kube, "m", signal))?.places).toEqual([
        { host: "203.0.113.9", port: 8444 },
        { host: "lb.example", port: 8444 },
      ]);
      await ensureDirectService(kube, "m", "tp.example:443", signal);
      expect(cluster.service?.spec.type).toBe("ClusterIP");
      expect((await findDirectService(kube, "m", signal))?.places[0]).toEqual({ host: "tp.example", port: 443 });
      await removeDirectService(kube, "m", signal);
      expect(cluster.service).toBeUndefined();
    }));
  test("is left alone when it is there already, or somebody else's", () =>
    withService(async (kube, cluster) => {
      await ensureDirectService(kube, "m", "[2001:db8::1]:443", signal);
      expect((await findDirectService(kube, "m", signal))?.places).toEqual([{ host: "2001:db8::1", port: 443 }]);
      await ensureDirectService(kube, "m", "[2001:db8::1]:443", signal);
      expect(cluster.asked.filter((asked) => asked.startsWith("PATCH"))).toEqual([]);
      cluster.service!.metadata.labels = {};
      await expect(ensureDirectService(kube, "m", "nodeport", signal)).rejects.toMatchObject({ code: "conflict" });
      expect(await findDirectService(kube, "m", signal)).toBeUndefined();
      await removeDirectService(kube, "m", signal);
      expect(cluster.service).toBeDefined();
    }));
  test("is none for whoever may not read it", () =>
    withService(async (kube, cluster) => {
      cluster.refused = true;
      expect(await findDirectService(kube, "m", signal)).toBeUndefined();
      await removeDirectService(kube, "m", signal);
      await expect(ensureDirectService(kube, "m", "nodeport", signal)).rejects.toMatchObject({ code: "forbidden" });
    }));
});
