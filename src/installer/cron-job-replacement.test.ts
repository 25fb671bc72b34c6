import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { CronJob, Pod, Workload } from "#kube/objects.ts";
import { findAgent } from "./agent.ts";
import { readReplacement, replacementOf } from "./replacement.ts";
import type { InjectRequest } from "./rollout.ts";
import { injectAgent, listAgents, listReplaceable, removeAgent, restoreContainer } from "./rollout.ts";

const ref = { kind: "CronJob", name: "report", namespace: "default" } as const;
const { signal } = new AbortController();
const ada = { containerName: "app", by: "ada@laptop", installId: "ada" };

/** One CronJob, its Jobs, and for each of these a pod that is ready. Watches are refused: every look is a list. */
class FakeCluster {
  readonly changes: string[] = [];
  /** Another's change comes first, so often. */
  conflicts = 0;
  jobs: Workload[] = [];
  object: CronJob;

  constructor(suspend?: boolean) {
    const app = { name: "app", image: "report:1", command: ["report"], ports: [{ containerPort: 8080 }] };
    const template = { metadata: { labels: { app: "report" } }, spec: { containers: [app] } };
    const jobSpec = { template, completions: 5, parallelism: 5, activeDeadlineSeconds: 60, backoffLimit: 2 };
    this.object = {
      metadata: { name: "report", namespace: "default", uid: "cron", resourceVersion: "1" },
      spec: { schedule: "0 4 * * *", ...(suspend === undefined ? {} : { suspend }), jobTemplate: { spec: jobSpec } },
    };
  }

  get standIns(): readonly Workload[] {
    return this.jobs.filter(({ metadata }) => metadata.name?.includes("-stand-in-"));
  }
  /** Of a run that its schedule began. */
  run(): void {
    const owner = { apiVersion: "batch/v1", kind: "CronJob", name: "report", uid: "cron", controller: true };
    const metadata = { name: "report-1", namespace: "default", uid: "report-1", ownerReferences: [owner] };
    this.jobs.push({ metadata, spec: { ...this.object.spec.jobTemplate.spec, selector: selectorOf("report-1") } });
  }

  answer(request: FakeRequest, response: ServerResponse): void {
    const { path, method, query } = request;
    const found = this.#routes.find(([verb, pattern]) => verb === method && pattern.test(path));
    if (query.get("watch") !== null) sendStatus(response, 403, "Forbidden", "no watch here");
    else if (found === undefined) sendStatus(response, 404, "NotFound", path);
    else found[2](request, response);
  }
  readonly #routes: readonly (readonly [string, RegExp, (request: FakeRequest, response: ServerResponse) => void])[] = [
    ["GET", /^\/version$/, (_, response) => sendJson(response, { gitVersion: "v1.34.0" })],
    ["GET", /\/namespaces\/default$/, (_, response) => sendJson(response, { metadata: { name: "default" } })],
    ["GET", /\/cronjobs$/, (_, response) => sendItems(response, [this.object])],
    ["GET", /\/cronjobs\/report$/, (_, response) => sendJson(response, this.object)],
    ["PATCH", /\/cronjobs\/report$/, (request, response) => this.#patch(request, response)],
    ["GET", /\/jobs$/, ({ query }, response) => sendItems(response, this.#listJobs(query))],
    ["POST", /\/jobs$/, (request, response) => sendJson(response, this.#create(request))],
    ["DELETE", /\/jobs\/[^/]+$/, ({ path }, response) => sendJson(response, this.#delete(path))],
    ["GET", /\/pods$/, ({ query }, response) => sendItems(response, this.#listPods(query))],
    [
      "GET",
      /\/(deployments|statefulsets|daemonsets|replicasets|rollouts|events)$/,
      (_, response) => sendItems(response, []),
    ],
  ];
  #listJobs(query: URLSearchParams): readonly Workload[] {
    const name = query.get("fieldSelector")?.replace("metadata.name=", "");
    const all = query.get("labelSelector") === "telepresence.io/stand-in=true" ? this.standIns : this.jobs;
    return all.filter(({ metadata }) => name === undefined || metadata.name === name);
  }
  #listPods(query: URLSearchParams): readonly Pod[] {
    const selector = query.get("labelSelector") ?? "";
    const own = this.jobs.filter(({ metadata }) => selector === "job-name" || selector.endsWith(`=${metadata.uid}`));
    return own.map(podOf);
  }
  #delete(path: string): object {
    this.jobs = this.jobs.filter(({ metadata }) => !path.endsWith(`/${metadata.name}`));
    this.changes.push("job deleted");
    return {};
  }
  #create({ body }: FakeRequest): Workload {
    const job = JSON.parse(body) as Workload;
    const name = job.metadata.name ?? "";
    const made = {
      metadata: { ...job.metadata, uid: name, generation: 1 },
      spec: { ...job.spec, selector: selectorOf(name) },
    };
    this.jobs.push(made);
    this.changes.push("job created");
    return made;
  }
  #patch({ body }: FakeRequest, response: ServerResponse): void {
    const patch = JSON.parse(body) as {
      readonly metadata: { readonly resourceVersion: string; readonly annotations: Record<string, string | null> };
      readonly spec: { readonly suspend: boolean };
    };
    const { resourceVersion = "0", annotations: before } = this.object.metadata;
    if (this.conflicts > 0 || patch.metadata.resourceVersion !== resourceVersion) {
      this.conflicts -= 1;
      sendStatus(response, 409, "Conflict", "somebody was quicker");
      return;
    }
    const kept = Object.entries({ ...before, ...patch.metadata.annotations }).filter(([, value]) => value !== null);
    const annotations = Object.fromEntries(kept) as Record<string, string>;
    const metadata = { ...this.object.metadata, annotations, resourceVersion: String(Number(resourceVersion) + 1) };
    this.object = { metadata, spec: { ...this.object.spec, suspend: patch.spec.suspend } };
    this.changes.push(`suspend ${String(patch.spec.suspend)}`);
    sendJson(response, this.object);
  }
}

function sendItems(response: ServerResponse, items: readonly unknown[]): void {
  sendJson(response, { metadata: { resourceVersion: "1" }, items });
}
function selectorOf(name: string): NonNullable<Workload["spec"]["selector"]> {
  return { matchLabels: { "batch.kubernetes.io/controller-uid": name } };
}
function podOf({ metadata, spec }: Workload): Pod {
  const owner = { apiVersion: "batch/v1", kind: "Job", name: metadata.name ?? "", uid: metadata.uid ?? "" };
  return {
    metadata: {
      ...spec.template.metadata,
      name: `${metadata.name}-x`,
      uid: `${metadata.uid}-x`,
      ownerReferences: [owner],
    },
    spec: spec.template.spec,
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  };
}

async function lab(suspend?: boolean) {
  const cluster = new FakeCluster(suspend);
  const server = await new FakeApiServer().listen();
  server.answer = (request, response) => cluster.answer(request, response);
  const kube = server.open();
  const request: InjectRequest = {
    workload: ref,
    services: [],
    needed: [{ containerPort: 8080, protocol: "tcp" }],
    image: { image: "telepresence/telepresence:0.1.0" },
    onProgress: () => undefined,
    replace: ada,
    signal,
  };
  const restore = (installId: string) =>
    restoreContainer(kube, { workload: ref, installId, onProgress: () => undefined, signal });
  return { cluster, server, kube, request, restore, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() };
}

describe("a CronJob that is replaced", () => {
  test("has its schedule rest, and one job of ours stand in, at once", async () => {
    await using parts = await lab();
    const { cluster, kube, request } = parts;
    const before = cluster.object.spec.jobTemplate;
    expect(await injectAgent(kube, request)).toMatchObject({ changed: true, warnings: [] });
    expect(cluster.changes).toEqual(["suspend true", "job created"]);
    const [job] = cluster.standIns;
    expect(job?.metadata.name).toMatch(/^report-stand-in-[0-9a-f]{6}$/);
    expect(job?.metadata.ownerReferences).toEqual([
      { apiVersion: "batch/v1", kind: "CronJob", name: "report", uid: "cron" },
    ]);
    // Neither as many as its runs have, nor with their time limit: it stands in until it is told to end.
    expect(job?.spec).toMatchObject({ backoffLimit: 2 });
    expect(Object.keys(job?.spec ?? {})).toEqual(["backoffLimit", "template", "selector"]);
    const pod = job?.spec.template.spec;
    expect(pod?.containers[0]?.image).toBe("telepresence/telepresence:0.1.0");
    expect(pod === undefined ? undefined : findAgent(pod)).toBeDefined();
    expect(cluster.object.spec.jobTemplate).toEqual(before);
  });

  test.each([undefined, false, true])("gets its schedule back as it was (suspend: %s)", async (suspend) => {
    await using parts = await lab(suspend);
    const { cluster, kube, request, restore } = parts;
    await injectAgent(kube, request);
    cluster.conflicts = 2;
    await restore("ada");
    expect(cluster.standIns).toEqual([]);
    expect(cluster.object.spec.suspend ?? false).toBe(suspend ?? false);
    expect(cluster.object.metadata.annotations).toEqual({});
    await restore("ada"); // of which there is nothing any more
    expect(cluster.changes.filter((change) => change === "job deleted")).toHaveLength(1);
  });

  test("is one person's at a time, and anybody's to take back", async () => {
    await using parts = await lab();
    const { cluster, kube, request, restore } = parts;
    await injectAgent(kube, request);
    expect(await injectAgent(kube, request)).toMatchObject({ changed: false });
    const bob = { ...ada, by: "bob@laptop", installId: "bob" };
    await expect(injectAgent(kube, { ...request, replace: bob })).rejects.toThrow(
      "container app of cronjob report is replaced by ada@laptop",
    );
    await restore("bob");
    expect(cluster.standIns).toHaveLength(1);
    expect(readReplacement(cluster.object)?.by).toBe("ada@laptop");
    expect(await listAgents(kube, "default", signal)).toMatchObject([{ workload: ref, inManifest: false }]);
    expect(await removeAgent(kube, { workload: ref, onProgress: () => undefined, signal })).toBe(true);
    expect(cluster.standIns).toEqual([]);
    expect(cluster.object.spec.suspend).toBe(false);
    expect(await listAgents(kube, "default", signal)).toEqual([]);
  });

  test("keeps what somebody else has made of its schedule meanwhile", async () => {
    await using parts = await lab(true);
    const { cluster, kube, request, restore } = parts;
    await injectAgent(kube, request);
    cluster.object = { ...cluster.object, spec: { ...cluster.object.spec, suspend: false } };
    await restore("ada");
    expect(cluster.object.spec.suspend).toBe(false);
  });

  // `kubectl replace -f` of the CronJob took annotation and `suspend` away: the job stood in for ever, and nobody's `leave`
  // ended it; nor did the schedule rest when it was replaced again.
  test("has nothing stand in for it once its record is gone, and rests when it is replaced again", async () => {
    await using parts = await lab();
    const { cluster, kube, request, restore } = parts;
    const asDeployed = cluster.object;
    const deployAgain = (): void => {
      const { resourceVersion = "" } = cluster.object.metadata;
      cluster.object = { ...asDeployed, metadata: { ...asDeployed.metadata, resourceVersion } };
    };
    await injectAgent(kube, request);
    deployAgain();
    await restore("bob");
    expect(cluster.standIns).toHaveLength(1);
    await restore("ada");
    expect(cluster.standIns).toEqual([]);

    await injectAgent(kube, request);
    deployAgain();
    expect(await injectAgent(kube, request)).toMatchObject({ changed: true });
    expect(cluster.standIns).toHaveLength(1);
    expect(cluster.object.spec.suspend).toBe(true);
    await restore("ada");
    expect([cluster.standIns, cluster.object.spec.suspend]).toEqual([[], false]);
  });

  // The other's job was deleted and his process got nothing any more, because the record alone was looked at.
  test("stays whose it is when its record is gone, until that one or everybody's `uninstall` ends it", async () => {
    await using parts = await lab();
    const { cluster, kube, request, restore } = parts;
    const asDeployed = cluster.object;
    await injectAgent(kube, request);
    cluster.object = asDeployed;
    const before = cluster.standIns;
    const bob = { ...request, replace: { ...ada, by: "bob@laptop", installId: "bob" } };
    await expect(injectAgent(kube, bob)).rejects.toThrow("container app of cronjob report is replaced by ada@laptop");
    expect([cluster.standIns, cluster.object]).toEqual([before, asDeployed]);
    await restore("ada");
    expect(await injectAgent(kube, bob)).toMatchObject({ changed: true });
  });

  // Without the record neither `connect` nor `uninstall` knew of it, and no name that could be given ended the job.
  test("is known by the job that stands in, once its record is gone, to who connects and to who uninstalls", async () => {
    await using parts = await lab();
    const { cluster, kube, request } = parts;
    const asDeployed = cluster.object;
    await injectAgent(kube, request);
    cluster.object = asDeployed;
    const [left] = await listReplaceable(kube, "default", signal);
    expect(left === undefined ? undefined : replacementOf(left)).toMatchObject({ installId: "ada", container: "app" });
    expect(await listAgents(kube, undefined, signal)).toMatchObject([{ workload: ref, inManifest: false }]);
    expect(await removeAgent(kube, { workload: ref, onProgress: () => undefined, signal })).toBe(true);
    expect(cluster.standIns).toEqual([]);
    expect(cluster.object).toEqual(asDeployed);
    expect(await listAgents(kube, undefined, signal)).toEqual([]);
  });

  test("has no job come after it was given up, when that was asked for already", async () => {
    const asked = Promise.withResolvers<void>();
    const made = Promise.withResolvers<void>();
    await using parts = await lab();
    const { cluster, server, kube, request, restore } = parts;
    server.answer = (incoming, response) => {
      const answer = (): void => cluster.answer(incoming, response);
      if (incoming.method !== "POST") answer();
      else {
        asked.resolve();
        void made.promise.then(answer);
      }
    };
    const giveUp = new AbortController();
    let settled = false;
    const failed = injectAgent(kube, { ...request, signal: giveUp.signal })
      .catch((error: unknown) => error)
      .finally(() => (settled = true));
    await asked.promise;
    giveUp.abort(new Error("^C"));
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(settled).toBe(false);
    made.resolve();
    expect(await failed).toMatchObject({ message: "^C" });
    await restore("ada");
    expect([cluster.standIns, cluster.object.spec.suspend]).toEqual([[], false]);
  });

  test("gets another job when the one that stood in has failed", async () => {
    await using parts = await lab();
    const { cluster, kube, request } = parts;
    await injectAgent(kube, request);
    const failed = { conditions: [{ type: "Failed", status: "True" }] };
    const before = cluster.standIns.map(({ metadata }) => metadata.name);
    cluster.jobs = cluster.jobs.map((job) => ({ ...job, status: failed }) as Workload);
    expect(await injectAgent(kube, request)).toMatchObject({ changed: true });
    expect(cluster.standIns).toHaveLength(1);
    expect(cluster.standIns.map(({ metadata }) => metadata.name)).not.toEqual(before);
  });

  test("says which of its runs go on beside the process", async () => {
    await using parts = await lab();
    const { cluster, kube, request } = parts;
    cluster.run();
    expect((await injectAgent(kube, request)).warnings).toEqual([
      "a run of cronjob report goes on to its end beside the process in its place: report-1-x",
    ]);
  });
});
