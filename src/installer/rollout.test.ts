// Stories of our own: an API error that one laptop met while it waited took the agent out from under another that was
// served by it; a pod that found no node was named after half a minute, and given up although an autoscaler worked.
import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import type { FakeRequest } from "#kube/api-server.fake.ts";
import { FakeApiServer, sendJson, sendStatus } from "#kube/api-server.fake.ts";
import type { Pod, Service, Workload } from "#kube/objects.ts";
import type { AgentMode } from "#wire/connect-choices.ts";
import { findAgent } from "./agent.ts";
import { planManifest } from "./manifest-agent.ts";
import { provideAgent } from "./provide-agent.ts";
import type { InjectRequest, InjectResult } from "./rollout.ts";
import { injectAgent, listAgents, removeAgent } from "./rollout.ts";
import { pulledNow } from "./slow-pods.ts";

const service: Service = {
  metadata: { name: "hello", namespace: "default", uid: "s" },
  spec: { clusterIP: "10.96.0.7", selector: { app: "hello" }, ports: [{ port: 80, targetPort: "http" }] },
};
const ready = { conditions: [{ type: "Ready", status: "True" }] };
const unschedulable = {
  conditions: [
    { type: "PodScheduled", status: "False", reason: "Unschedulable", message: "0/1 nodes are available: too full." },
  ],
};
const pulling = {
  initContainerStatuses: [
    { name: "traffic-agent", ready: false, restartCount: 0, state: { waiting: { reason: "PodInitializing" } } },
  ],
};

/** One deployment and its pods. Watches are refused, so that every look is a list at a time that the test chooses. */
class FakeDeployment {
  readonly clock = new FakeClock();
  readonly said: string[] = [];
  object: Workload = {
    metadata: { name: "hello", namespace: "default", uid: "w", resourceVersion: "1", generation: 1 },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: "hello" } },
      template: {
        metadata: { labels: { app: "hello" } },
        spec: { containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }] },
      },
    },
  };
  /** Status of each pod of the present template. */
  pods: readonly NonNullable<Pod["status"]>[] = [];
  podEvents: readonly object[] = [];
  podsForbidden = false;
  requests = 0;
  /** Whether the server breaks at this request, counted from 1. */
  breaksAt: (request: number) => boolean = () => false;
  /** Lets the way the agent comes be chosen. */
  mode: AgentMode | undefined;

  get hasAgent(): boolean {
    return findAgent(this.object.spec.template.spec) !== undefined;
  }

  answer(request: FakeRequest, response: ServerResponse): void {
    const { path, method, query } = request;
    const items = (list: readonly unknown[]): void =>
      sendJson(response, { metadata: { resourceVersion: "1" }, items: list });
    if (query.get("watch") !== null) sendStatus(response, 403, "Forbidden", "no watch here");
    else if (path === "/version") sendJson(response, { gitVersion: "v1.34.0" });
    else if (path.endsWith("/namespaces/default")) sendJson(response, { metadata: { name: "default" } });
    else if (path.endsWith("/deployments")) items([this.object]);
    else if (path.endsWith("/deployments/hello")) {
      if (method === "PATCH") this.#patch(JSON.parse(request.body) as { spec: object });
      sendJson(response, this.object);
    } else if (path.endsWith("/events")) {
      items(query.get("fieldSelector") === "involvedObject.uid=new-0" ? this.podEvents : []);
    } else if (path.endsWith("/pods") && this.podsForbidden) sendStatus(response, 403, "Forbidden", "no pods for you");
    else if (path.endsWith("/pods")) items(this.pods.map((status, number) => this.#pod(status, number)));
    else sendStatus(response, 404, "NotFound", path);
  }
  #pod(status: Pod["status"], number: number): Pod {
    const { spec } = this.object.spec.template;
    return { metadata: { name: `new-${number}`, uid: `new-${number}` }, spec, status: status ?? {} };
  }
  #patch(patch: { readonly spec: object }): void {
    const generation = (this.object.metadata.generation ?? 0) + 1;
    this.object = {
      ...(merge(this.object, { spec: patch.spec }) as Workload),
      metadata: { ...this.object.metadata, generation, resourceVersion: String(generation) },
      status: { observedGeneration: generation, availableReplicas: 1 },
    };
  }

  /** Runs an injection; time passes until it ends or `until` is there. */
  async inject(
    untilMs: number,
    atMs: Readonly<Record<number, () => void>> = {},
  ): Promise<Pick<InjectResult, "changed" | "warnings"> | undefined> {
    await using server = await new FakeApiServer().listen();
    server.answer = (request, response) => {
      this.requests += 1;
      if (this.breaksAt(this.requests)) sendStatus(response, 500, "InternalError", "broken by the test");
      else this.answer(request, response);
    };
    const controller = new AbortController();
    let ended = false;
    const request: InjectRequest = {
      workload: { kind: "Deployment", name: "hello", namespace: "default" },
      services: [service],
      needed: [{ containerPort: 8080, protocol: "tcp" }],
      image: { image: "telepresence/telepresence:0.1.0" },
      onProgress: (text) => this.said.push(text),
      signal: controller.signal,
    };
    const kube = server.open({}, { clock: this.clock });
    const { mode } = this;
    const injecting = (
      mode === undefined ? injectAgent(kube, request) : provideAgent(kube, { ...request, mode })
    ).finally(() => (ended = true));
    const outcome = injecting.catch((error: unknown) => {
      if (!controller.signal.aborted) throw error;
      return undefined;
    });
    outcome.catch(() => undefined); // awaited below
    while (!ended && this.clock.now() < untilMs) {
      for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate); // real requests get through
      atMs[this.clock.now()]?.();
      await this.clock.advance(250);
    }
    controller.abort();
    return await outcome;
  }
}

function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const merged: Record<string, unknown> = { ...(target as Record<string, unknown> | undefined) };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

// What a team keeps in its manifests comes back with the next synchronisation, and each time restarts the pods.
describe("an agent that stands in the manifest", () => {
  const manifestOf = (hello: FakeDeployment): Workload =>
    planManifest(hello.object, {
      workload: { kind: "Deployment", name: "hello", namespace: "default" },
      services: [service],
      image: { image: "telepresence/telepresence:0.0.9" },
      server: { major: 1, minor: 34 },
    }).object as Workload;

  test("is used as it is, and neither changed for another port nor taken out", async () => {
    const hello = new FakeDeployment();
    const { template } = manifestOf(hello).spec;
    hello.object = {
      ...hello.object,
      spec: { ...hello.object.spec, template },
      status: { observedGeneration: 1, availableReplicas: 1 },
    };
    hello.pods = [ready];
    const before = hello.object;
    expect(await hello.inject(10_000)).toMatchObject({ changed: false });
    await using server = await new FakeApiServer().listen();
    server.answer = (request, response) => hello.answer(request, response);
    const kube = server.open();
    const { signal } = new AbortController();
    const common = {
      workload: { kind: "Deployment", name: "hello", namespace: "default" },
      onProgress: () => undefined,
      signal,
    } as const;
    const needed = [{ containerPort: 9090, protocol: "tcp" }] as const;
    await expect(
      injectAgent(kube, { ...common, services: [service], needed, image: { image: "x:1" } }),
    ).rejects.toThrow("the traffic-agent in the manifest of deployment hello does not take port 9090");
    expect(await removeAgent(kube, common)).toBe(false);
    expect(await listAgents(kube, "default", signal)).toMatchObject([{ inManifest: true }]);
    expect(hello.object).toBe(before);
  });
});

describe("injectAgent() when the rollout cannot be waited for", () => {
  test("leaves the agent in after an API error, and says so", async () => {
    const hello = new FakeDeployment();
    hello.podsForbidden = true;
    await expect(hello.inject(60_000)).rejects.toMatchObject({
      code: "forbidden",
      hint: expect.stringContaining("`telepresence uninstall --agent hello` takes it out"),
    });
    expect(hello.hasAgent).toBe(true);
  });
  test("takes it out again when its pods do not come up, within seconds and with the scheduler's reason", async () => {
    const hello = new FakeDeployment();
    hello.pods = [unschedulable];
    await expect(hello.inject(60_000)).rejects.toThrow("pod new-0 finds no node: 0/1 nodes are available: too full.");
    expect(hello.clock.now()).toBeLessThan(17_000);
    expect(hello.said).toContain(
      "deployment hello: 0 of 1 pods ready, pod new-0 finds no node: 0/1 nodes are available: too full.",
    );
    expect(hello.hasAgent).toBe(false);
  });
  test("leaves it in when a ready pod has it: another laptop may be served", async () => {
    const hello = new FakeDeployment();
    hello.object = { ...hello.object, spec: { ...hello.object.spec, replicas: 2 } };
    hello.pods = [unschedulable, ready];
    await expect(hello.inject(60_000)).rejects.toMatchObject({
      code: "rollout_failed",
      hint: expect.stringContaining("`telepresence uninstall --agent hello` takes it out"),
    });
    expect(hello.hasAgent).toBe(true);
  });
});

// Trap 26: what a failed create leaves is nothing, or is named.
test.each(["once", "from then on"])(
  "a server that breaks %s leaves the agent, nothing, or says what it leaves",
  async (how) => {
    const outcomes = new Set<string>();
    for (let first = 1; ; first++) {
      const hello = new FakeDeployment();
      hello.breaksAt = (request) => (how === "once" ? request === first : request >= first);
      hello.pods = [ready];
      const before = JSON.stringify(hello.object);
      const error = await hello.inject(400_000).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      if (hello.requests < first) break;
      if (error === undefined) expect(hello.hasAgent).toBe(true);
      else if (hello.hasAgent)
        expect(error).toMatchObject({ hint: expect.stringContaining("uninstall --agent hello") });
      else expect(JSON.stringify(hello.object)).toBe(before);
      outcomes.add(error === undefined ? "there" : hello.hasAgent ? "said" : "nothing");
    }
    for (const outcome of ["nothing", how === "once" ? "there" : "said"]) expect(outcomes).toContain(outcome);
  },
);

describe("provideAgent() where the template has a sidecar", () => {
  // `--agent ephemeral` took the sidecar in silence.
  test("uses it, and says so to who asked for an ephemeral agent", async () => {
    const hello = new FakeDeployment();
    hello.pods = [ready];
    await hello.inject(60_000);
    const line =
      "the pods of deployment hello have a sidecar already; it is used (`telepresence uninstall --agent hello` takes it out)";
    hello.mode = "ephemeral";
    expect(await hello.inject(120_000)).toMatchObject({ kind: "sidecar", changed: false, warnings: [line] });
    hello.mode = "auto";
    expect(await hello.inject(180_000)).toMatchObject({ kind: "sidecar", changed: false, warnings: [] });
  });
});

describe("injectAgent() while a pod takes its time", () => {
  test.each(["TriggeredScaleUp", "Nominated"])("waits for the node that an autoscaler makes (%s)", async (reason) => {
    const hello = new FakeDeployment();
    hello.pods = [unschedulable];
    hello.podEvents = [{ metadata: { name: "e" }, reason, message: "soon" }];
    const result = await hello.inject(300_000, { 200_000: () => (hello.pods = [ready]) });
    expect(result).toMatchObject({ changed: true, replaced: 1 });
    expect(hello.said).toContain(
      "deployment hello: 0 of 1 pods ready, pod new-0 finds no node: 0/1 nodes are available: too full., an autoscaler is making one",
    );
  });
  test("does so for five minutes", async () => {
    const hello = new FakeDeployment();
    hello.pods = [unschedulable];
    hello.podEvents = [{ metadata: { name: "e" }, reason: "TriggeredScaleUp", message: "soon" }];
    await expect(hello.inject(400_000)).rejects.toMatchObject({ code: "rollout_failed" });
    expect(hello.clock.now()).toBeGreaterThan(290_000);
  });
  test("tells which image is being pulled, after a while", async () => {
    const hello = new FakeDeployment();
    hello.pods = [pulling];
    hello.podEvents = [{ metadata: { name: "e" }, reason: "Pulling", message: 'Pulling image "telepresence:0.1.0"' }];
    await hello.inject(20_000, { 12_000: () => (hello.pods = [ready]) });
    expect(hello.said.slice(1)).toEqual([
      "deployment hello: 0 of 1 pods ready",
      "deployment hello: 0 of 1 pods ready, pulling image telepresence:0.1.0 (5 s)",
      "deployment hello: 0 of 1 pods ready, pulling image telepresence:0.1.0 (10 s)",
      "deployment hello: 1 of 1 pods ready",
    ]);
  });
});

test("pulledNow() is the image whose pull has not ended", () => {
  const event = (reason: string, message: string): object => ({ metadata: {}, reason, message });
  const seen = [
    event("Pulling", 'Pulling image "a:1"'),
    event("Pulled", 'Successfully pulled image "a:1" in 2s (2s including waiting). Image size: 1 bytes.'),
    event("Pulling", 'Pulling image "b:1"'),
  ] as Parameters<typeof pulledNow>[0];
  expect(pulledNow(seen)).toBe("b:1");
  expect(pulledNow(seen.slice(0, 2))).toBeUndefined();
});
