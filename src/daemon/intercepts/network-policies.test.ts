// The sentences about NetworkPolicies, over an API server that a test answers; what each rule means is in
// kube/network-policy.test.ts.
import { expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { NetworkPolicy } from "#kube/network-policy.ts";
import type { Service } from "#kube/objects.ts";
import { PolicyCheck } from "./network-policies.ts";

const { signal } = new AbortController();
const workload = { kind: "Deployment", name: "web", namespace: "shop" } as const;
const service = (targetPort: number | string): Service => ({
  metadata: { name: "web", namespace: "shop" },
  spec: { selector: { app: "web" }, ports: [{ port: 80, targetPort }] },
});
const of = (targetPort: number | string = "http") => ({
  workload,
  labels: { app: "web" },
  spec: { containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }] },
  services: [service(targetPort)],
});
const manager = { namespace: "telepresence", pod: undefined };
const policy = (namespace: string, name: string, spec: NetworkPolicy["spec"]): NetworkPolicy => ({
  metadata: { name, namespace },
  ...(spec === undefined ? {} : { spec }),
});

/** Policies and labels by namespace; undefined is forbidden. */
async function check(
  policies: Readonly<Record<string, readonly NetworkPolicy[] | undefined>>,
  { targetPort, labels = {} }: { targetPort?: number | string; labels?: object | undefined } = {},
): Promise<{ readonly check: PolicyCheck; readonly paths: readonly string[] }> {
  await using server = await new FakeApiServer().listen();
  server.answer = ({ path }, response) => {
    const [, namespace = ""] = /\/namespaces\/([^/]+)/.exec(path) ?? [];
    const items = policies[namespace];
    if (!path.endsWith("/networkpolicies")) sendJson(response, { metadata: { name: namespace, labels } });
    else if (items === undefined) sendStatus(response, 403, "Forbidden", "not for you");
    else sendJson(response, { items, metadata: { resourceVersion: "1" } });
  };
  const read = await PolicyCheck.read(server.open({ namespace: "shop" }), of(targetPort), manager, signal);
  return { check: read, paths: server.requests.map(({ path }) => path) };
}

test("names what keeps agents from the manager, in each of both namespaces", async () => {
  const { check: read } = await check({
    shop: [
      policy("shop", "no-way-out", { policyTypes: ["Egress"] }),
      policy("shop", "dns", { egress: [{ ports: [{ port: 53 }] }] }),
    ],
    telepresence: [policy("telepresence", "closed", {})],
  });
  expect(read.cuts).toEqual([
    "NetworkPolicies no-way-out and dns in namespace shop let no connection from the pods of deployment web out to port 8443 of the traffic-manager in namespace telepresence, which its agent needs: add an egress rule for it",
    "NetworkPolicy closed in namespace telepresence lets no connection from the pods of deployment web in namespace shop in to port 8443 of the traffic-manager in namespace telepresence, which its agent needs: add an ingress rule for it",
  ]);
});

test("names what a sidecar would lose that takes a port by its name, and nothing where it is redirected", async () => {
  const policies = {
    shop: [policy("shop", "by-number", { ingress: [{ ports: [{ port: 8080 }] }] })],
    telepresence: [],
  };
  const byName = await check(policies);
  expect(byName.check.lost).toEqual([
    "NetworkPolicy by-number in namespace shop admits callers to port 8080 of deployment web by its number, and with a sidecar they come to port 24900: admit the port by its name (http), or 24900 as well",
  ]);
  expect(byName.check.cuts).toEqual([]);
  expect((await check(policies, { targetPort: 8080 })).check.lost).toEqual([]);
});

test("says nothing of what may not be read, and reads no namespace where there is no policy", async () => {
  const forbidden = await check({});
  expect([forbidden.check.cuts, forbidden.check.lost]).toEqual([[], []]);
  const none = await check({ shop: [], telepresence: [] });
  expect(none.paths.toSorted()).toEqual([
    "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies",
    "/apis/networking.k8s.io/v1/namespaces/telepresence/networkpolicies",
  ]);
});

test("takes the manager's labels for known where its pod is not", async () => {
  const to = [{ namespaceSelector: {}, podSelector: { matchLabels: { "app.kubernetes.io/name": "traffic-manager" } } }];
  const { check: read } = await check({ shop: [policy("shop", "some", { egress: [{ to }] })], telepresence: [] });
  expect(read.cuts).toEqual([]);
});
