// Trap 49: a pod that was gone before it could be taken away was an error, and the whole rollout with it.
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Pod, Workload } from "#kube/objects.ts";
import { isReady } from "#kube/workloads/pod-problems.ts";
import { replacePodsByHand } from "./pod-replacement.ts";

const workload: Workload = {
  metadata: { name: "hello", namespace: "n", uid: "w" },
  spec: { replicas: 2, selector: { matchLabels: { app: "hello" } }, template: { spec: { containers: [] } } },
};
const podOf = (name: string, ready = true): Pod => ({
  metadata: { name, namespace: "n", uid: name },
  spec: { containers: [] },
  status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
});

test("a ReplicaSet's pods go one at a time while the others are ready; one that is gone already is no failure", async () => {
  const clock = new FakeClock();
  const deleted: string[] = [];
  const pods = new Map(["old-1", "old-2"].map((name) => [name, podOf(name)]));
  let fewestReady = 2;
  await using server = await new FakeApiServer().listen();
  server.answer = ({ method, path }, response) => {
    if (method !== "DELETE") {
      sendJson(response, { items: [...pods.values()], metadata: { resourceVersion: "1" } });
      return;
    }
    const name = path.split("/").at(-1) ?? "";
    deleted.push(name);
    pods.delete(name);
    // Its controller makes another, which is not ready at once.
    const next = name.replace("old", "new");
    pods.set(next, podOf(next, false));
    fewestReady = Math.min(fewestReady, [...pods.values()].filter(isReady).length);
    clock.after(1000, () => pods.set(next, podOf(next)));
    if (name === "old-1") sendStatus(response, 404, "NotFound", "somebody was quicker");
    else sendJson(response, {});
  };
  const ref = { kind: "ReplicaSet", name: "hello", namespace: "n" } as const;
  const isNew = ({ metadata }: Pod): boolean => metadata.name?.startsWith("new") === true;
  const kube = server.open({}, { clock });
  await using replacing = replacePodsByHand(kube, { ref, object: workload, isNew }, new AbortController().signal);
  for (let passedMs = 0; passedMs < 10_000; passedMs += 250) {
    for (let turn = 0; turn < 10; turn += 1) await new Promise(setImmediate);
    await clock.advance(250);
    replacing.check();
  }
  expect(deleted).toEqual(["old-1", "old-2"]);
  expect([...pods.keys()]).toEqual(["new-1", "new-2"]);
  expect(fewestReady).toBe(1);
});
