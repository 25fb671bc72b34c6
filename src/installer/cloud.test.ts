// What is removed with the cloud server, and what is not. Stories of our own: the namespace of `--cloud-namespace` was
// deleted with a traffic-manager that stood in it, and was left, as "not ours", for a volume that was on its way out.
import { expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import { cloudName, cloudSelector } from "./cloud-manifest.ts";
import { refuseToForget, removeCloud } from "./cloud.ts";
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
