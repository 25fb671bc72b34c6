// What a user may not see is no failure: there is less to propose, and the cluster has another name.
import { describe, expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import { findClusterId, findIngress } from "./find-ingress.ts";

const { signal } = new AbortController();
const query = { name: "hello", namespace: "shop", ports: ["8080"] };
const labels = { app: "hello" };
const hello = {
  metadata: { name: "hello", namespace: "shop" },
  spec: { selector: labels, ports: [{ port: 80, targetPort: 8000 }] },
};
const edge = {
  metadata: { name: "edge", namespace: "infra" },
  spec: { type: "LoadBalancer", ports: [{ port: 443 }] },
};
const deployment = {
  metadata: { name: "hello", namespace: "shop", uid: "d1" },
  spec: {
    selector: { matchLabels: labels },
    template: { metadata: { labels }, spec: { containers: [{ name: "a", ports: [{ containerPort: 8000 }] }] } },
  },
};

/** Answers by path; anything else is forbidden. */
async function server(answers: Readonly<Record<string, unknown>>) {
  const api = await new FakeApiServer().listen();
  api.answer = ({ path }, response) => {
    const known = answers[path];
    if (known === undefined) sendStatus(response, 403, "Forbidden", "you may not");
    else sendJson(response, known);
  };
  return api;
}
const place = (api: FakeApiServer) => ({ kube: api.open({ namespace: "shop" }), managerNamespace: "telepresence" });
const near = {
  "/api/v1/namespaces/shop/services": { items: [hello] },
  "/api/v1/namespaces/shop/services/hello": hello,
  "/apis/apps/v1/namespaces/shop/deployments": { items: [deployment] },
  "/apis/apps/v1/namespaces/shop/deployments/hello": deployment,
};
const own = { source: "service", host: "hello.shop", port: 80, tls: false };

describe("findIngress()", () => {
  test("knows the whole cluster's services where they may be listed", async () => {
    await using api = await server({ ...near, "/api/v1/services": { items: [hello, edge] } });
    const found = await findIngress(place(api), query, signal);
    expect(found.map(({ host }) => host)).toEqual(["edge.infra", "hello.shop"]);
  });
  test("knows the workload's own service without any right beyond its namespace", async () => {
    await using api = await server(near);
    expect(await findIngress(place(api), query, signal)).toEqual([own]);
  });
  test("finds nothing where nothing may be seen", async () => {
    await using api = await server({});
    expect(await findIngress(place(api), query, signal)).toEqual([]);
  });
});

describe("findClusterId()", () => {
  const system = { "/api/v1/namespaces/kube-system": { metadata: { name: "kube-system", uid: "k1" } } };
  const path = "/apis/apps/v1/namespaces/telepresence/deployments/traffic-manager";
  test.each([
    ["kube-system", { ...system, [path]: deployment }, "k1"],
    ["the manager where that may not be read", { [path]: deployment }, "d1"],
  ])("is the UID of %s", async (_, answers, uid) => {
    await using api = await server(answers);
    expect(await findClusterId(place(api), signal)).toBe(uid);
  });
  test("says which right is missing", async () => {
    await using api = await server({});
    await expect(findClusterId(place(api), signal)).rejects.toMatchObject({
      code: "forbidden",
      hint: "ask for the right to get the namespace kube-system, or deployments in namespace telepresence",
    });
  });
});
