// Against an API server that merges ephemeral containers by name, as the real one does. Story: two laptops attach at the
// same moment; each pod must get one agent, and both laptops must use it.
import type { ServerResponse } from "node:http";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { EphemeralContainer, Pod, Service, Workload } from "#kube/objects.ts";
import { attachPod } from "./attach.ts";
import { currentAgent, planEphemeral } from "./ephemeral.ts";
import type { ProvideRequest } from "./provide-agent.ts";
import { provideAgent } from "./provide-agent.ts";

const { signal } = new AbortController();
const services: readonly Service[] = [
  { metadata: { name: "hello" }, spec: { selector: { app: "hello" }, ports: [{ port: 80, targetPort: 8000 }] } },
];

function makePod(name: string, limits?: Readonly<Record<string, string>>): Pod {
  const container = { name: "server", ...(limits === undefined ? {} : { resources: { limits } }) };
  return {
    metadata: { name, namespace: "default", uid: `uid-${name}`, labels: { app: "hello" }, resourceVersion: "1" },
    spec: { containers: [container] },
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  };
}

const workload: Workload = {
  metadata: { name: "hello", namespace: "default", uid: "w", generation: 1, resourceVersion: "1" },
  spec: {
    replicas: 1,
    selector: { matchLabels: { app: "hello" } },
    template: { metadata: { labels: { app: "hello" } }, spec: { containers: [{ name: "server" }] } },
  },
};

class Cluster {
  readonly pods = new Map<string, Pod>();
  readonly dryRuns: string[] = [];
  template: Workload = workload;
  metrics: readonly object[] | undefined;
  /** Answers instead of a patch of ephemeral containers. */
  refuse: ((request: FakeRequest, response: ServerResponse) => boolean) | undefined;
  /** State that a new agent gets. */
  state: object = { running: { startedAt: "now" } };

  readonly answer = (request: FakeRequest, response: ServerResponse): void => {
    const { method, path } = request;
    if (path === "/version") sendJson(response, { gitVersion: "v1.34.0" });
    else if (path.endsWith("/ephemeralcontainers")) this.#patch(request, response);
    else if (path.startsWith("/apis/metrics.k8s.io")) {
      if (this.metrics === undefined) sendStatus(response, 404, "NotFound", "no metrics");
      else sendJson(response, { items: this.metrics, metadata: {} });
    } else if (path.includes("/pods")) this.#readPods(request, response);
    else if (path.endsWith("/deployments/hello") && method === "GET") sendJson(response, this.template);
    else if (path.endsWith("/jobs/hello") && method === "GET") sendJson(response, this.template);
    else sendStatus(response, 403, "Forbidden", "the rollout is forbidden in this test: denied");
  };

  #readPods({ path, query }: FakeRequest, response: ServerResponse): void {
    if (path.endsWith("/pods") && query.get("watch") !== null) {
      response.writeHead(200, { "Content-Type": "application/json" }).flushHeaders();
    } else if (path.endsWith("/pods")) {
      sendJson(response, { items: [...this.pods.values()], metadata: { resourceVersion: "7" } });
    } else {
      const pod = this.pods.get(path.split("/").at(-1) ?? "");
      if (pod === undefined) sendStatus(response, 404, "NotFound", "no such pod");
      else sendJson(response, pod);
    }
  }

  #patch(request: FakeRequest, response: ServerResponse): void {
    if (this.refuse?.(request, response) === true) return;
    const name = request.path.split("/").at(-2) ?? "";
    const pod = this.pods.get(name);
    if (pod === undefined) {
      sendStatus(response, 404, "NotFound", "no such pod");
      return;
    }
    const [added] = (JSON.parse(request.body) as Pod).spec.ephemeralContainers ?? [];
    const taken = pod.spec.ephemeralContainers?.find((item) => item.name === added?.name);
    if (taken !== undefined && JSON.stringify(taken) !== JSON.stringify(added)) {
      sendStatus(response, 422, "Invalid", "existing ephemeral containers may not be changed");
      return;
    }
    const patched = added === undefined || taken !== undefined ? pod : this.add(name, added);
    if (request.query.get("dryRun") === "All") {
      this.dryRuns.push(name);
      this.pods.set(name, pod);
    }
    sendJson(response, patched);
  }

  add(name: string, container: EphemeralContainer): Pod {
    const pod = this.pods.get(name) ?? makePod(name);
    const status = {
      name: container.name,
      ready: false,
      restartCount: 0,
      image: container.image ?? "",
      state: this.state,
    };
    const patched = {
      ...pod,
      spec: { ...pod.spec, ephemeralContainers: [...(pod.spec.ephemeralContainers ?? []), container] },
      status: {
        ...pod.status,
        ephemeralContainerStatuses: [...(pod.status?.ephemeralContainerStatuses ?? []), status],
      },
    } as Pod;
    this.pods.set(name, patched);
    return patched;
  }
}

let server: FakeApiServer;
let cluster: Cluster;
const progress: string[] = [];
const wanted = (change: Partial<ProvideRequest> = {}): ProvideRequest => ({
  workload: { kind: "Deployment", name: "hello", namespace: "default" },
  services,
  needed: [{ containerPort: 8000, protocol: "tcp" }],
  image: { image: "telepresence:1" },
  mode: "auto",
  onProgress: (text) => void progress.push(text),
  signal,
  ...change,
});

beforeEach(async () => {
  progress.length = 0;
  server = await new FakeApiServer().listen();
  cluster = new Cluster();
  server.answer = cluster.answer;
  for (const name of ["hello-1", "hello-2"]) cluster.pods.set(name, makePod(name));
});
afterEach(() => server[Symbol.asyncDispose]());

describe("provideAgent()", () => {
  test("attaches to the pods of a Job, which no rollout replaces, and says why by a sidecar it cannot be", async () => {
    const job = { workload: { kind: "Job", name: "hello", namespace: "default" } } as const;
    expect(await provideAgent(server.open(), wanted(job))).toMatchObject({ kind: "ephemeral", changed: true });
    await expect(provideAgent(server.open(), wanted({ ...job, mode: "sidecar" }))).rejects.toThrow(
      "job hello takes no sidecar: the pod template of a Job cannot be changed",
    );
    const replace = { containerName: "hello", by: "ann", installId: "1" };
    await expect(provideAgent(server.open(), wanted({ ...job, mode: "sidecar", replace }))).rejects.toMatchObject({
      message: "job hello cannot be replaced: the pod template of a Job cannot be changed",
      hint: expect.stringContaining("`telepresence intercept`") as string, // not the ephemeral agent, which replaces nothing
    });
    cluster.pods.clear();
    cluster.pods.set("hello-9", makePod("hello-9"));
    cluster.refuse = (_request, response) => {
      sendStatus(response, 403, "Forbidden", "not for you");
      return true;
    };
    await expect(provideAgent(server.open(), wanted(job))).rejects.toThrow(
      /^job hello gets no ephemeral agent: .*; nor a sidecar, since the pod template of a Job cannot be changed$/,
    );
  });

  test("asks the server first, then attaches to each pod without touching the workload", async () => {
    const provided = await provideAgent(server.open(), wanted());
    expect(provided).toMatchObject({ kind: "ephemeral", changed: true, warnings: [] });
    await provided.started?.(signal);
    expect(cluster.dryRuns).toHaveLength(1);
    for (const pod of cluster.pods.values()) expect(currentAgent(pod)?.container).toBe("traffic-agent-1");
    expect(server.requests.filter(({ method, path }) => method === "PATCH" && path.includes("deployments"))).toEqual(
      [],
    );
  });

  test("uses agents that are there", async () => {
    const kube = server.open();
    await provideAgent(kube, wanted());
    const again = await provideAgent(kube, wanted());
    expect(again).toEqual({ kind: "ephemeral", changed: false, replaced: 0, warnings: [] }); // nothing to wait for
    expect([...cluster.pods.values()].map((pod) => pod.spec.ephemeralContainers?.length)).toEqual([1, 1]);
  });

  test("makes one agent a pod for two laptops at one moment", async () => {
    const outcomes = await Promise.all([1, 2].map(() => provideAgent(server.open(), wanted())));
    expect(outcomes.map((item) => item.kind)).toEqual(["ephemeral", "ephemeral"]);
    expect([...cluster.pods.values()].map((pod) => pod.spec.ephemeralContainers?.length)).toEqual([1, 1]);
  });

  test.each([
    [
      'pods "hello-1" is forbidden: violates PodSecurity "restricted:latest": non-default capabilities',
      "pod security (restricted:latest) forbids NET_ADMIN",
    ],
    ['admission webhook "x" denied the request: no debugging', "no debugging"],
    ['User "alice" cannot patch resource "pods/ephemeralcontainers"', "pods/ephemeralcontainers"],
  ])("goes over to a rollout when the server refuses, and says why: %s", async (message, why) => {
    cluster.refuse = (_request, response) => {
      sendStatus(response, 403, "Forbidden", message);
      return true;
    };
    // The rollout is refused as well here: what counts is that it was tried, and announced.
    await expect(provideAgent(server.open(), wanted())).rejects.toThrow("refused by the cluster");
    expect(progress.join("\n")).toContain("comes by a rollout");
    expect(progress.join("\n")).toContain(why);
    progress.length = 0;
    await expect(provideAgent(server.open(), wanted({ mode: "ephemeral" }))).rejects.toMatchObject({
      code: "forbidden",
    });
    expect(progress).toEqual([]);
  });

  test("does not take memory that the application may need", async () => {
    cluster.pods.clear();
    cluster.pods.set("hello-1", makePod("hello-1", { memory: "160Mi" }));
    await expect(provideAgent(server.open(), wanted())).rejects.toThrow();
    expect(progress[0]).toContain("memory limit of 160 MiB, and metrics.k8s.io does not tell");
    progress.length = 0;
    const usage = (memory: string): object[] => [
      { metadata: { name: "hello-1" }, containers: [{ usage: { memory } }] },
    ];
    cluster.metrics = usage("60Mi");
    await expect(provideAgent(server.open(), wanted())).rejects.toThrow();
    expect(progress[0]).toContain("100 MiB of its memory limit of 160 MiB free, expected at least 128 MiB");
    cluster.metrics = usage("30Mi");
    expect(await provideAgent(server.open(), wanted())).toMatchObject({ kind: "ephemeral", warnings: [] });
  });

  test("does not come back ephemeral to a pod whose memory ran out with one", async () => {
    cluster.pods.clear();
    cluster.pods.set("hello-1", makePod("hello-1", { memory: "1Gi" }));
    cluster.metrics = [{ metadata: { name: "hello-1" }, containers: [{ usage: { memory: "100Mi" } }] }];
    cluster.state = { terminated: { exitCode: 137, reason: "OOMKilled" } };
    cluster.add("hello-1", planEphemeral(makePod("hello-1"), wanted()));
    await expect(provideAgent(server.open(), wanted())).rejects.toThrow();
    expect(progress[0]).toContain("the last agent in pod hello-1 was ended because the pod's memory ran out");
  });

  test("warns who insists on an agent where memory is short", async () => {
    cluster.pods.clear();
    cluster.pods.set("hello-1", makePod("hello-1", { memory: "160Mi" }));
    const { kind, warnings } = await provideAgent(server.open(), wanted({ mode: "ephemeral" }));
    expect(kind).toBe("ephemeral");
    expect(warnings[0]).toContain("the application may be ended with the agent");
  });

  test("does not fail for a pod that goes away meanwhile", async () => {
    cluster.refuse = (request, response) => {
      if (!request.path.includes("hello-2")) return false;
      cluster.pods.delete("hello-2");
      sendStatus(response, 404, "NotFound", "gone");
      return true;
    };
    expect((await provideAgent(server.open(), wanted())).kind).toBe("ephemeral");
  });

  // Trap 48: pods that were ending counted among those that had to have an agent.
  test("leaves a pod alone that is ending, or has ended", async () => {
    const ending = makePod("hello-3");
    cluster.pods.set("hello-3", {
      ...ending,
      metadata: { ...ending.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" },
    });
    cluster.pods.set("hello-4", { ...makePod("hello-4"), status: { phase: "Failed" } });
    const { started } = await provideAgent(server.open(), wanted());
    await started?.(signal);
    const attached = [...cluster.pods.values()].filter(({ spec }) => spec.ephemeralContainers !== undefined);
    expect(attached.map(({ metadata }) => metadata.name)).toEqual(["hello-1", "hello-2"]);
  });

  test("tells the image that cannot be pulled", async () => {
    cluster.state = { waiting: { reason: "ImagePullBackOff", message: "no such image" } };
    const { started } = await provideAgent(server.open(), wanted());
    await expect(started?.(signal)).rejects.toMatchObject({
      code: "injection_failed",
      message: expect.stringContaining("container traffic-agent-1 cannot be pulled: no such image") as string,
    });
  });

  test("tells why an agent ended at once", async () => {
    cluster.state = { terminated: { exitCode: 1, message: "port 24899 is in use" } };
    const { started } = await provideAgent(server.open(), wanted());
    await expect(started?.(signal)).rejects.toThrow(/ended at once \(exit code 1\): port 24899/);
  });
});

describe("attachPod()", () => {
  const ephemeralOf = (name: string): readonly string[] =>
    (cluster.pods.get(name)?.spec.ephemeralContainers ?? []).map((item) => item.name);

  test("uses the agent of another version that was quicker", async () => {
    const before = makePod("hello-1");
    cluster.add("hello-1", planEphemeral(before, { ...wanted(), image: { image: "telepresence:2" } }));
    const { agent, changed } = await attachPod(server.open(), before, wanted(), signal);
    expect([agent.image, changed]).toEqual(["telepresence:2", false]);
    expect(ephemeralOf("hello-1")).toEqual(["traffic-agent-1"]);
  });

  test("looks again after a conflict", async () => {
    let conflicts = 2;
    cluster.refuse = (_request, response) => {
      if (conflicts-- <= 0) return false;
      sendStatus(response, 409, "Conflict", "the object has been modified");
      return true;
    };
    expect((await attachPod(server.open(), makePod("hello-1"), wanted(), signal)).changed).toBe(true);
  });

  test("follows an agent that has ended with the next number", async () => {
    cluster.state = { terminated: { exitCode: 0 } };
    const ended = cluster.add("hello-1", planEphemeral(makePod("hello-1"), wanted()));
    cluster.state = { running: {} };
    const { agent } = await attachPod(server.open(), ended, wanted(), signal);
    expect(agent.container).toBe("traffic-agent-2");
  });

  test("refuses a second agent beside one that does not take the port", async () => {
    const pod = cluster.add("hello-1", planEphemeral(makePod("hello-1"), wanted()));
    await expect(
      attachPod(server.open(), pod, wanted({ needed: [{ containerPort: 9999, protocol: "tcp" }] }), signal),
    ).rejects.toThrow("does not take port 9999");
  });

  test("gives a mistake of our own back instead of trying for ever", async () => {
    cluster.refuse = (_request, response) => {
      sendStatus(response, 422, "Invalid", "spec.ephemeralContainers[0].env: Invalid value");
      return true;
    };
    await expect(attachPod(server.open(), makePod("hello-1"), wanted(), signal)).rejects.toThrow("Invalid value");
    expect(server.requests.filter(({ method }) => method === "PATCH")).toHaveLength(1);
  });
});
