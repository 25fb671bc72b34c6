// What is removed with the cloud server, and what is not. Stories of our own: the namespace of `--cloud-namespace` was
// deleted with a traffic-manager that stood in it, and was left, as "not ours", for a volume that was on its way out.
import { expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Manifest } from "./cloud-manifest.ts";
import { cloudName, cloudSelector } from "./cloud-manifest.ts";
import { applyCloud, refuseToForget, removeCloud, waitForCloud } from "./cloud.ts";
import { createdNamespaceLabel, managerSelector } from "./marks.ts";

const namespace = "telepresence";
const { signal } = new AbortController();
const cloud = { name: cloudName, labels: cloudSelector };
const manager = { name: "traffic-manager", labels: managerSelector };

// A later `cloud install`, to change a flag, that did not name the database again took an empty one, and removed the
// Secret with the address of the other.
test.each([
  [
    "a Secret of ours, or of the user's",
    { valueFrom: { secretKeyRef: { name: "any", key: "database" } } },
    "names none",
  ],
  ["no Secret", { value: "sqlite:/data/cloud.sqlite" }, undefined],
])("a server whose database is named in %s", async (_, how, refusal) => {
  await using server = await new FakeApiServer().listen();
  const containers = [{ name: cloudName, env: [{ name: "TELEPRESENCE_CLOUD_DATABASE", ...how }] }];
  server.answer = (_request, response) =>
    sendJson(response, { metadata: cloud, spec: { template: { spec: { containers } } } });
  const kube = server.open({ namespace: "own" });
  const asked = refuseToForget(kube, { namespace, onProgress: () => undefined, signal });
  if (refusal === undefined) await asked;
  else await expect(asked).rejects.toThrow(refusal);
});

/** A namespace that we made with these objects, by their plural, which are slow to go. */
async function remove(objects: Readonly<Record<string, readonly object[]>>, deleteData: boolean) {
  await using server = await new FakeApiServer().listen();
  const deleted: string[] = [];
  server.answer = ({ method, path }, response) => {
    const [, plural = "namespaces", name] = /\/namespaces\/[^/]+(?:\/([a-z]+)(?:\/([^/]+))?)?$/.exec(path) ?? [];
    const found = (objects[plural] ?? []) as readonly { readonly name: string }[];
    const items = found.map((metadata) => ({ metadata: { uid: "u", ...metadata } }));
    if (method === "DELETE") deleted.push(plural);
    if (plural === "namespaces") {
      sendJson(response, { metadata: { name: namespace, uid: "u", labels: { [createdNamespaceLabel]: "true" } } });
    } else if (name === undefined) sendJson(response, { metadata: { resourceVersion: "1" }, items });
    else {
      const item = items.find(({ metadata }) => metadata.name === name);
      if (item === undefined) sendStatus(response, 404, "NotFound", "none");
      else sendJson(response, item);
    }
  };
  const place = { namespace, onProgress: () => undefined, signal };
  return { ...(await removeCloud(server.open({ namespace: "own" }), place, deleteData)), deleted };
}

test("a traffic-manager in the same namespace stays, and the namespace with it", async () => {
  const { deleted, notes } = await remove({ deployments: [cloud, manager] }, true);
  expect(deleted).toEqual(["deployments"]);
  expect(notes).toEqual([`namespace ${namespace} was left: it holds deployment traffic-manager, which is not ours`]);
});

test("what people have stored stays, and keeps the namespace, which is said once", async () => {
  const { deleted, notes } = await remove({ deployments: [cloud], persistentvolumeclaims: [cloud] }, false);
  expect(deleted).toEqual(["deployments"]);
  expect(notes).toEqual([expect.stringMatching(/^PersistentVolumeClaim .* was left with what people have stored/)]);
});

test("the namespace goes while the volume and a replica set are still on their way out", async () => {
  const objects = { deployments: [cloud], replicasets: [cloud], persistentvolumeclaims: [cloud] };
  const { deleted, notes } = await remove(objects, true);
  expect(deleted).toEqual(["deployments", "persistentvolumeclaims", "namespaces"]);
  expect(notes).toEqual([]);
});

// A second `cloud install` said that the server stands while the pod of the first one still answered; and pods went on with the
// password of a database that had got another one.
test("a pod of an earlier installation does not count as this one's, and another Secret makes another one", async () => {
  await using server = await new FakeApiServer().listen();
  let secretVersion = "1";
  let pods: readonly object[] = [];
  const applied: { readonly spec?: { readonly template: { readonly metadata: { readonly annotations: object } } } }[] =
    [];
  server.answer = ({ method, path, body }, response) => {
    if (method === "PATCH") applied.push(JSON.parse(body) as (typeof applied)[number]);
    if (method === "PATCH") sendJson(response, { metadata: { ...cloud, resourceVersion: secretVersion } });
    else if (path.includes("/pods")) sendJson(response, { metadata: { resourceVersion: "1" }, items: pods });
    else sendStatus(response, 404, "NotFound", "none");
  };
  const kube = server.open({ namespace: "own" });
  const place = { namespace, onProgress: () => undefined, signal };
  const metadata = { ...cloud, namespace };
  const template = { metadata: { labels: cloudSelector } };
  const objects = [
    { apiVersion: "v1", kind: "Secret", metadata },
    { apiVersion: "apps/v1", kind: "Deployment", metadata, spec: { template } },
  ] as readonly Manifest[];
  const first = await applyCloud(kube, objects, place);
  expect((await applyCloud(kube, objects, place)).revision).toBe(first.revision);
  secretVersion = "2";
  const second = await applyCloud(kube, objects, place);
  expect(second.revision).not.toBe(first.revision);
  expect(applied.at(-1)?.spec?.template.metadata.annotations).toEqual({ "telepresence.io/revision": second.revision });

  const pod = (revision: string): object => ({
    metadata: { name: revision, uid: revision, annotations: { "telepresence.io/revision": revision } },
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  });
  pods = [pod(first.revision)];
  const limited = { ...place, signal: AbortSignal.timeout(300) };
  await expect(waitForCloud(kube, limited, second.revision)).rejects.toThrow();
  pods = [pod(first.revision), pod(second.revision)];
  await waitForCloud(kube, place, second.revision);
});

// Only a Secret of our own was looked at: with `--secret NAME` pods went on with a password that had been changed.
test.each([
  ["another content of it makes another one", false],
  ["one that cannot be seen is told, with the command to type", true],
])("pods read the user's own Secret: %s", async (_, hidden) => {
  await using server = await new FakeApiServer().listen();
  let resourceVersion = "1";
  const written: string[] = [];
  server.answer = ({ method, path }, response) => {
    if (method === "PATCH") sendJson(response, { metadata: cloud });
    else if (!path.endsWith("/secrets/mine")) sendStatus(response, 404, "NotFound", "none");
    else if (hidden) sendStatus(response, 403, "Forbidden", "not yours");
    else sendJson(response, { metadata: { name: "mine", resourceVersion } });
    if (method !== "GET") written.push(path);
  };
  const kube = server.open({ namespace: "own" });
  const place = { namespace, onProgress: () => undefined, signal };
  const template = { metadata: { labels: cloudSelector } };
  const metadata = { ...cloud, namespace };
  const deployment = { apiVersion: "apps/v1", kind: "Deployment", metadata, spec: { template } };
  const objects: readonly Manifest[] = [deployment];
  const revisions: string[] = [];
  const apply = async (): Promise<readonly string[]> => {
    const { done, revision } = await applyCloud(kube, objects, place, "mine");
    revisions.push(revision);
    return done;
  };
  const said = [await apply(), await apply()];
  resourceVersion = "2";
  await apply();
  expect(new Set(revisions.slice(0, 2)).size).toBe(1);
  expect(new Set(revisions).size).toBe(hidden ? 1 : 2);
  const command = `kubectl rollout restart -n ${namespace} deployment/${cloudName}`;
  expect(said.map((lines) => lines.some((line) => line.includes(command)))).toEqual([hidden, hidden]);
  expect(written.filter((path) => path.includes("secrets/mine"))).toEqual([]);
});
