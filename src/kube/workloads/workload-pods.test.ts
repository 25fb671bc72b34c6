// Nothing on the pod of a CronJob's Job names the CronJob, and Jobs of other makers carry the same label.
import { expect, test } from "vitest";
import { FakeApiServer, sendJson } from "#kube/api-server.fake.ts";
import type { OwnerReference, Pod } from "#kube/objects.ts";
import { listWorkloadPods, watchWorkloadPods } from "./workload-pods.ts";
import type { FoundWorkload, WorkloadKind } from "./workloads.ts";

const { signal } = new AbortController();
const owned = (kind: string, uid: string): { readonly ownerReferences: readonly OwnerReference[] } => ({
  ownerReferences: [{ apiVersion: "batch/v1", kind, name: uid, uid, controller: true }],
});
const jobs = [
  { metadata: { name: "tick-1", uid: "job-1", ...owned("CronJob", "cron") } },
  { metadata: { name: "tick-9", uid: "job-9", ...owned("CronJob", "another") } },
  { metadata: { name: "tick-77", uid: "job-77" } },
];
const pods: Pod[] = ["job-1", "job-9", "job-77"].map((uid) => ({
  metadata: { name: `pod-of-${uid}`, uid: `pod-of-${uid}`, labels: { "job-name": uid }, ...owned("Job", uid) },
  spec: { containers: [] },
}));
const found = (kind: WorkloadKind, uid: string): FoundWorkload => ({
  kind,
  name: "tick",
  namespace: "n",
  object: {
    metadata: { name: "tick", namespace: "n", uid },
    spec: { selector: { matchLabels: { app: "tick" } }, template: { spec: { containers: [] } } },
  },
});

async function serve(): Promise<FakeApiServer> {
  const server = await new FakeApiServer().listen();
  server.answer = ({ path, query }, response) => {
    if (query.get("watch") !== null) response.writeHead(200, { "Content-Type": "application/json" }).flushHeaders();
    else sendJson(response, { items: path.endsWith("/jobs") ? jobs : pods, metadata: { resourceVersion: "1" } });
  };
  return server;
}

test("pods of a CronJob are those of its own Jobs, listed and watched", async () => {
  await using server = await serve();
  const kube = server.open();
  const listed = await listWorkloadPods(kube, found("CronJob", "cron"), signal);
  expect(listed.map((pod) => pod.metadata.name)).toEqual(["pod-of-job-1"]);
  const over = new AbortController();
  const seen = Promise.withResolvers<readonly Pod[]>();
  const watching = watchWorkloadPods(kube, found("CronJob", "cron"), seen.resolve, over.signal);
  expect((await seen.promise).map((pod) => pod.metadata.name)).toEqual(["pod-of-job-1"]);
  over.abort();
  await watching.catch(() => undefined);
});

test("any other kind is asked for by what chooses its pods", async () => {
  await using server = await serve();
  const kube = server.open();
  await listWorkloadPods(kube, found("DaemonSet", "d"), signal);
  await listWorkloadPods(kube, found("Pod", "p"), signal);
  expect(server.requests.map(({ query }) => query.get("labelSelector") ?? query.get("fieldSelector"))).toEqual([
    "app=tick",
    "metadata.name=tick",
  ]);
});
