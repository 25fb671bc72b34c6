// The daemon's session with a real manager and real agents in one process; only the Kubernetes API and the device are
// stood in for. What the cluster tier shows with pods is shown here within milliseconds, at each step's failure too.
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { ClusterAccess } from "#daemon/session-access.ts";
import { findTeamMates, describeTeamMates } from "#daemon/intercepts/team-mates.ts";
import { unknownSessionId } from "#wire/control-api.ts";
import { anything, ask, namedServer, never, testAgent, testManager, workload } from "#test/flow/manager/harness.ts";
import {
  Cluster,
  ended,
  lab,
  noNetwork,
  openSession,
  params,
  portOf,
  quiet,
  stack,
  type OpenNetwork,
} from "./session-lab.ts";

describe("intercept()", () => {
  test("brings all pods' traffic to the laptop, with the environment, and leave() gives it back", async () => {
    const { cluster, session, processPort } = await lab(["hello-1", "hello-2", "hello-3"]);
    const { info, environment, warnings } = await session.intercept(params(processPort), quiet, never);
    expect({ state: info.state, environment, warnings }).toEqual({
      state: "active",
      environment: { GREETING: "hello" },
      warnings: [],
    });
    for (const agent of cluster.agents.values()) expect(await ask(portOf(agent), "x")).toBe("laptop:x");
    await session.leave("hello", never);
    for (const agent of cluster.agents.values()) expect(await ask(portOf(agent), "x")).toBe("application:x");
    expect(session.intercepts).toEqual([]);
  });

  test("lets callers see that the process refuses, where that was asked for", async () => {
    const { cluster, session } = await lab();
    const nobody = 1; // a port that no test listens on
    const wish = { ...params(nobody), name: "hello" };
    await session.intercept({ ...wish, onRefused: "fail" }, quiet, never);
    const agent = cluster.agents.get("hello-1");
    await expect(ask(portOf(agent), "x")).rejects.toThrow();
    await session.leave("hello", never);
    await session.intercept(wish, quiet, never);
    expect(await ask(portOf(agent), "x")).toBe("application:x");
  });

  test("takes the requests that carry its own id, which is known once it is connected", async () => {
    const { cluster, session, processPort } = await lab();
    const filter = `request.headers["x-id"] == "${unknownSessionId}:hello"`;
    const { info } = await session.intercept({ ...params(processPort), filter }, quiet, never);
    expect(info.spec.filter).toBe(`request.headers["x-id"] == "${info.id}"`);
    // What is not HTTP, or carries no id, is nobody's but the application's.
    expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("application:x");
  });

  test("follows pods that come later", async () => {
    const { cluster, session, processPort, addPod } = await lab();
    await session.intercept(params(processPort), quiet, never);
    const late = await addPod("hello-2");
    cluster.podsChanged();
    await expect.poll(() => ask(portOf(late), "x")).toBe("laptop:x");
  });

  // `pod_ip` was that of a pod which the rollout was taking away.
  test("names pods that live before those that are ending", async () => {
    const { cluster, session, processPort } = await lab(["hello-1", "hello-2"]);
    const { info } = await session.intercept(params(processPort), quiet, never);
    for (const ending of info.pods) {
      const agent = cluster.agents.get(ending.name);
      if (agent === undefined) throw new Error(`no agent in ${ending.name}`);
      cluster.agents.delete(ending.name); // its agent serves on while its pod ends
      cluster.podsChanged();
      const last = session.intercepts[0]?.pods.at(-1)?.name;
      expect(last).toBe(ending.name);
      expect(session.intercepts[0]?.pods).toHaveLength(2);
      cluster.agents.set(ending.name, agent);
      cluster.podsChanged();
    }
  });

  // Trap 26: dangling intercepts after a create that failed half-way.
  test("leaves nothing behind when the injection fails", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.injectError = new AppError("rollout_failed", "the image cannot be pulled");
    await expect(session.intercept(params(processPort), quiet, never)).rejects.toMatchObject({
      code: "rollout_failed",
    });
    expect(cluster.manager.registry.list()).toEqual([]);
    cluster.injectError = undefined;
    await session.intercept(params(processPort), quiet, never);
  });

  test("leaves nothing behind when the command is gone while the pods are waited for", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.introductionError = new AppError("forbidden", "get pods/portforward is forbidden");
    const controller = new AbortController();
    const creating = session.intercept(
      params(processPort),
      (text) => {
        if (text.startsWith("Waiting")) controller.abort(new AppError("cancelled", "the command ended"));
      },
      controller.signal,
    );
    await expect(creating).rejects.toMatchObject({ code: "cancelled" });
    expect(cluster.manager.registry.list()).toEqual([]);
  });

  test("leaves nothing behind when the command is gone before the manager's answer", async () => {
    const { cluster, session, processPort } = await lab();
    const { registry } = cluster.manager;
    const create = registry.create.bind(registry);
    const controller = new AbortController();
    registry.create = async (...args) => {
      await create(...args);
      controller.abort(new AppError("cancelled", "the command ended"));
      return await new Promise<never>(() => undefined);
    };
    const creating = session.intercept(params(processPort), quiet, controller.signal);
    await expect(creating).rejects.toMatchObject({ code: "cancelled" });
    expect(registry.list()).toEqual([]);
    registry.create = create;
    await session.intercept(params(processPort), quiet, never);
  });

  test("attaches ephemeral agents to pods that come later, and only those", async () => {
    const { cluster, session, processPort, addPod } = await lab();
    cluster.agentKind = "ephemeral";
    const attached: string[] = [];
    cluster.onAttach = async (podName) => {
      attached.push(podName);
      await addPod(podName);
      cluster.bare.delete(podName);
      cluster.podsChanged();
    };
    const { info } = await session.intercept(params(processPort), quiet, never);
    expect(info.agent).toBe("ephemeral");
    expect(attached).toEqual([]);
    cluster.bare.add("hello-2");
    cluster.podsChanged();
    await expect.poll(() => session.intercepts[0]?.pods.map((pod) => pod.name)).toEqual(["hello-1", "hello-2"]);
    expect(attached).toEqual(["hello-2"]);
    expect(session.intercepts[0]?.agent).toBe("ephemeral");
    expect(await ask(portOf(cluster.agents.get("hello-2")), "x")).toBe("laptop:x");
  });

  test("is active as soon as an agent serves, before the cluster tells that it runs", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.agentKind = "ephemeral";
    cluster.coming.add("hello-1");
    cluster.started = ended;
    let knocks = 0;
    const open = cluster.openIntroduction.bind(cluster);
    cluster.openIntroduction = async (...args) => {
      knocks += 1;
      if (knocks < 3) throw new AppError("refused", "nothing listens there yet");
      return await open(...args);
    };
    const { info, environment } = await session.intercept(params(processPort), quiet, never);
    expect(info.state).toBe("active");
    expect(knocks).toBeGreaterThanOrEqual(3);
    expect(environment).toEqual({ GREETING: "hello" });
  });

  test("tells why an agent that was to come does not start", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.agentKind = "ephemeral";
    cluster.coming.add("hello-1");
    cluster.introductionError = new AppError("refused", "nothing listens there yet");
    cluster.started = () => Promise.reject(new AppError("injection_failed", "its image cannot be pulled"));
    await expect(session.intercept(params(processPort), quiet, never)).rejects.toThrow("its image cannot be pulled");
    expect(session.intercepts).toEqual([]);
  });

  // It waited for the pods below a StatefulSet's partition until its time was over.
  test("waits for no pod that its workload keeps without an agent, and tells how many were replaced", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.inject = () => Promise.resolve({ agent: "sidecar", replacedPods: 1, warnings: [] });
    cluster.bare.add("hello-0");
    cluster.podsChanged();
    const { info } = await session.intercept(params(processPort), quiet, never);
    expect(info).toMatchObject({ state: "active", replacedPods: 1 });
    expect(session.intercepts[0]?.replacedPods).toBeUndefined();
  });

  test("attaches nothing where the agents come with the workload's template", async () => {
    const { cluster, session, processPort } = await lab();
    let attached = 0;
    cluster.onAttach = () => {
      attached += 1;
      return Promise.resolve();
    };
    cluster.bare.add("hello-2"); // an old pod on its way out
    const creating = session.intercept(params(processPort), quiet, never);
    await expect.poll(() => session.intercepts.length === 0).toBe(true);
    cluster.bare.delete("hello-2");
    cluster.podsChanged();
    await creating;
    expect(attached).toBe(0);
  });

  // A new link knew only finished intercepts: one that was being created timed out half a minute after its rollout.
  test("goes on over a link that was renewed during the rollout", async () => {
    const { cluster, session, processPort } = await lab();
    const rollout = Promise.withResolvers<Awaited<ReturnType<ClusterAccess["inject"]>>>();
    const injecting = Promise.withResolvers<void>();
    cluster.inject = () => {
      injecting.resolve();
      return rollout.promise;
    };
    const creating = session.intercept(params(processPort), quiet, never);
    await injecting.promise;
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    cluster.manager = stack.use(
      await testManager({ guard: anything, config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } } }),
    );
    await expect.poll(async () => (await session.status(never)).state, { timeout: 10_000 }).toBe("Connected");
    rollout.resolve({ agent: "sidecar", warnings: [] });
    expect((await creating).info.state).toBe("active");
    expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("laptop:x");
  });

  // The old pod's agent, which lingers while its pod ends, refused the new port, and the command ended with that.
  test("waits for the new pods' agents when the old ones refuse what only the new know", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    const second = stack.use(await namedServer("laptop"));
    const added = stack.use(await namedServer("application"));
    const ports = [{ containerPort: added.port, protocol: "tcp" as const, targetHost: "127.0.0.1" }];
    cluster.resolve = () =>
      Promise.resolve({
        workload,
        containerName: "app",
        ports: ports.map((port) => ({ ...port, targetPort: second.port })),
        warnings: [],
      });
    const successor = stack.use(await testAgent({ number: 2, containerPort: added.port }));
    cluster.inject = () => {
      cluster.agents.delete("hello-1"); // its pod is ending, its agent serves on
      cluster.agents.set("hello-2", successor);
      cluster.podsChanged();
      return Promise.resolve({ agent: "sidecar" as const, warnings: [] });
    };
    const { info } = await session.intercept(params(second.port, "second"), quiet, never);
    expect({ state: info.state, pods: info.pods.map((pod) => pod.name) }).toEqual({
      state: "active",
      pods: ["hello-2"],
    });
  });

  test("fails with the agents' reason when the pods that are there refuse it", async () => {
    const { cluster, session, processPort } = await lab();
    const unknown = { containerPort: 9, protocol: "tcp" as const, targetHost: "127.0.0.1", targetPort: processPort };
    cluster.resolve = () => Promise.resolve({ workload, containerName: "app", ports: [unknown], warnings: [] });
    await expect(session.intercept(params(processPort), quiet, never)).rejects.toMatchObject({
      code: "manager_failed",
    });
    expect(cluster.manager.registry.list()).toEqual([]);
  });

  test("is refused where nobody knows its process' host, before anything is touched", async () => {
    const { cluster, session, processPort } = await lab();
    const lost = { ...params(processPort), address: "no..such" }; // which no resolver asks anybody for
    await expect(session.intercept(lost, quiet, never)).rejects.toThrow("--address is no..such, which has no address");
    expect(cluster.manager.registry.list()).toEqual([]);
  });

  test("names the other intercept when the local port or the name is taken", async () => {
    const { session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await expect(session.intercept(params(processPort, "other"), quiet, never)).rejects.toThrow(
      `Port 127.0.0.1:${processPort} is already in use by intercept hello`,
    );
    await expect(session.intercept(params(1), quiet, never)).rejects.toMatchObject({ code: "intercept_exists" });
  });

  test("finds a team mate's intercept before anything is touched", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await using other = await openSession(cluster, "bob@desk");
    cluster.injectError = new AppError("internal", "touched");
    await expect(other.intercept(params(processPort), quiet, never)).rejects.toThrow(/ada@laptop/);
  });

  test("goes on without the environment and warns when it may not be read", async () => {
    const { cluster, session, processPort } = await lab();
    cluster.environmentError = new AppError("forbidden", "create pods/exec is forbidden", { hint: "ask for it" });
    const { environment, warnings } = await session.intercept(params(processPort), quiet, never);
    expect(environment).toBeUndefined();
    expect(warnings).toEqual(["the pod's environment could not be read: create pods/exec is forbidden; ask for it"]);
  });

  test("copies the volumes that are wanted, and removes them with the intercept", async () => {
    const { session, processPort, cluster } = await lab();
    const volumes = { copy: [], limitBytes: 1 };
    const wanted = await session.intercept({ ...params(processPort), volumes }, quiet, never);
    expect(wanted.volumes).toEqual({ root: "/run/copies", mounts: ["/etc/app"] });
    expect(cluster.volumesRemoved).toBe(0);
    await session.leave("hello", never);
    expect(cluster.volumesRemoved).toBe(1);
    await session.intercept({ ...params(processPort), volumes }, quiet, never);
    await session[Symbol.asyncDispose]();
    expect(cluster.volumesRemoved).toBe(2);
  });
  test("goes on without volumes and warns when they may not be read, unless they were asked for by name", async () => {
    const { session, processPort, cluster } = await lab();
    cluster.volumesError = new AppError("forbidden", "no secrets", { hint: "ask for it" });
    const volumes = { copy: [], limitBytes: 1 };
    const { warnings } = await session.intercept({ ...params(processPort), volumes }, quiet, never);
    expect(warnings).toEqual(["the pod's volumes could not be copied: no secrets; ask for it"]);
    await session.leave("hello", never);
    const named = { ...params(processPort), volumes: { ...volumes, copy: ["data"] } };
    await expect(session.intercept(named, quiet, never)).rejects.toThrow("no secrets");
    expect(session.intercepts).toEqual([]);
  });

  test("tells when an intercept has ended, whoever ended it", async () => {
    const { session, processPort } = await lab();
    const { info } = await session.intercept(params(processPort), quiet, never);
    let ended = false;
    const end = session.interceptEnded(info.spec.name).then(() => (ended = true));
    expect(ended).toBe(false);
    await session.leave(info.spec.name, never);
    await end;
    await session.interceptEnded("no such intercept");
    const again = await session.intercept(params(processPort), quiet, never);
    const disposed = session.interceptEnded(again.info.spec.name);
    await session[Symbol.asyncDispose]();
    await disposed;
  });
});

describe("a session", () => {
  test("ends in order: the application answers when dispose() has resolved", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await session[Symbol.asyncDispose]();
    expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("application:x");
    expect(cluster.manager.registry.list()).toEqual([]);
    expect(cluster.news).toEqual([`InterceptActive on ${workload.name}`, `InterceptRemoved on ${workload.name}`]);
  });

  // Traps 23: a restarted manager knew nothing, and agents kept a stale view.
  test("announces its intercepts to a new manager, and introduces the agents again, without a command", async () => {
    const { cluster, session, processPort } = await lab(["hello-1", "hello-2"]);
    const { info } = await session.intercept(params(processPort), quiet, never);
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    for (const agent of cluster.agents.values()) expect(await ask(portOf(agent), "x")).toBe("application:x");
    cluster.manager = stack.use(
      await testManager({ guard: anything, config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } } }),
    );
    for (const agent of cluster.agents.values()) {
      await expect.poll(() => ask(portOf(agent), "x"), { timeout: 10_000 }).toBe("laptop:x");
    }
    expect(session.intercepts.map((info) => info.state)).toEqual(["active"]);
    expect(session.intercepts[0]?.createdAtMs).toBe(info.createdAtMs);
    expect((await session.status(never)).state).toBe("Connected");
    const told = ["InterceptActive", "InterceptSuspended", "InterceptActive"];
    await expect.poll(() => cluster.news).toEqual(told.map((reason) => `${reason} on ${workload.name}`));
  });

  // Callers have its id in their browsers: it must not change because the link was lost.
  test("keeps the id of a personal intercept when the manager was replaced", async () => {
    const { cluster, session, processPort } = await lab();
    const filter = `request.headers["x-id"] == "${unknownSessionId}:hello"`;
    const { info } = await session.intercept({ ...params(processPort), filter }, quiet, never);
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    cluster.manager = stack.use(
      await testManager({ guard: anything, config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } } }),
    );
    await expect.poll(() => session.intercepts.map(({ state }) => state), { timeout: 10_000 }).toEqual(["active"]);
    expect(session.intercepts[0]?.spec.filter).toBe(info.spec.filter);
    expect(session.intercepts[0]?.id).not.toBe(info.id);
  });

  // The network kept the first session, which was dead: connected, and nothing went through.
  test("gives its network the link that stands when it was renewed while the network came up", async () => {
    const cluster = new Cluster(stack.use(await testManager({ guard: anything })));
    const given: unknown[] = [];
    let standing: unknown;
    const openNetwork: OpenNetwork = async (link, first, scope) => {
      first.session.destroy();
      await expect.poll(() => link.current !== undefined && link.current !== first).toBe(true);
      standing = link.current?.session;
      return { ...(await noNetwork(link, first, scope)), setSession: (session) => void given.push(session) };
    };
    stack.use(await openSession(cluster, "ada@laptop", openNetwork));
    expect(given).toEqual([standing]);
  });

  test("lets an intercept go that was left while it was announced to a new manager", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    const manager = stack.use(
      await testManager({ guard: anything, config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } } }),
    );
    const [announced, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const create = manager.registry.create.bind(manager.registry);
    manager.registry.create = async (...args) => {
      const info = await create(...args);
      announced.resolve();
      await answer.promise;
      return info;
    };
    cluster.manager = manager;
    await announced.promise;
    await session.leave("hello", never);
    answer.resolve();
    await expect.poll(async () => (await session.status(never)).state).toBe("Connected");
    expect(session.intercepts).toEqual([]);
    expect(manager.registry.list()).toEqual([]);
  });

  test("finishes a leave whose command is gone", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    const { registry } = cluster.manager;
    const remove = registry.remove.bind(registry);
    const controller = new AbortController();
    registry.remove = async (...args) => {
      controller.abort(new AppError("cancelled", "the command ended"));
      await remove(...args);
    };
    await session.leave("hello", controller.signal);
    expect(session.intercepts).toEqual([]);
    expect(registry.list()).toEqual([]);
  });

  // The failed `leave` kept the intercept, and the next link brought it back to a process that was gone.
  test("has left an intercept when the link is lost before the manager's answer", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    const asked = Promise.withResolvers<void>();
    cluster.manager.registry.remove = () => {
      asked.resolve();
      return new Promise<never>(() => undefined);
    };
    const leaving = [session.leave("hello", never), session.leave("hello", never)];
    await asked.promise;
    await cluster.manager[Symbol.asyncDispose]();
    await Promise.all(leaving);
    expect(session.intercepts).toEqual([]);
  });

  test("takes its time when each new link is lost at once", async () => {
    const cluster = new Cluster(stack.use(await testManager({ guard: anything })));
    let links = 0;
    const open = cluster.openManager.bind(cluster);
    const many = Promise.withResolvers<void>();
    cluster.openManager = async () => {
      links += 1;
      if (links === 6) many.resolve();
      return await open();
    };
    const startMs = systemClock.now();
    // Two with one identity: the manager ends the one when the other arrives.
    for (let count = 0; count < 2; count++) stack.use(await openSession(cluster));
    await many.promise;
    // Four links after the first two: two pauses each, 100 and 200 ms.
    expect(systemClock.now() - startMs).toBeGreaterThanOrEqual(290);
  });

  // `uninstall --everything` took the manager away from whoever was connected to it, and said nothing.
  test("names a team mate's intercepts to whoever uninstalls, connected or not", async () => {
    const { cluster, session, processPort } = await lab();
    const { info } = await session.intercept(params(processPort), quiet, never);
    const openManager = cluster.openManager.bind(cluster);
    await using other = await openSession(cluster, "bob@desk");
    const rest = { openManager, clock: systemClock };
    const connected = { ...rest, listed: (signal: AbortSignal) => other.everybody(signal), own: new Set<string>() };
    for (const options of [connected, { ...connected, listed: undefined }]) {
      const others = await findTeamMates(options, never);
      const since = new Date(info.createdAtMs).toISOString();
      const line = `the intercept hello of ada@laptop (Deployment hello, namespace shop, since ${since})`;
      expect(describeTeamMates(others, undefined)).toEqual([line]);
      expect(describeTeamMates(others, [workload])).toEqual([line]);
      expect(describeTeamMates(others, [])).toEqual([]);
    }
    expect(await findTeamMates({ ...connected, own: new Set([info.id]) }, never)).toEqual([]);
    const gone = { ...connected, listed: undefined, openManager: () => Promise.reject(new AppError("not_found", "")) };
    expect(await findTeamMates(gone, never)).toEqual([]);
    expect(session.intercepts[0]?.state).toBe("active");
  });

  // `connect` said nothing and ended with 0 while the manager was gone.
  test("installs a manager that is gone again on restore(), and only then, and goes on with it", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    expect(await session.restore(quiet, never)).toEqual({ installed: false, warnings: [] });
    const { agentPort } = cluster.manager;
    await cluster.manager[Symbol.asyncDispose]();
    await expect.poll(async () => (await session.status(never)).problem).toMatch(/run `telepresence connect`/);
    await expect(session.restore(quiet, never)).rejects.toMatchObject({ code: "manager_unavailable" });
    let installations = 0;
    cluster.restoreManager = async () => {
      installations += 1;
      cluster.manager = stack.use(
        await testManager({
          guard: anything,
          config: { ports: { laptop: 0, agent: agentPort, health: 0, direct: 0 } },
        }),
      );
      return { installed: true, warnings: ["installed elsewhere"] };
    };
    expect(await session.restore(quiet, never)).toEqual({ installed: true, warnings: ["installed elsewhere"] });
    expect((await session.status(never)).state).toBe("Connected");
    expect(installations).toBe(1);
    await expect.poll(() => session.intercepts.map(({ state }) => state), { timeout: 10_000 }).toEqual(["active"]);
  });

  // Right after the manager was deleted its link looked up still: `connect` said nothing.
  test("asks the manager on restore() whether the link that looks up is", async () => {
    const { cluster, session } = await lab();
    let restored = 0;
    cluster.restoreManager = () => {
      restored += 1;
      return Promise.resolve({ installed: true, warnings: [] });
    };
    cluster.cutManager();
    expect((await session.restore(quiet, never)).installed).toBe(true);
    expect(restored).toBe(1);
    expect((await session.status(never)).state).toBe("Connected");
    expect((await session.restore(quiet, never)).installed).toBe(false);
  });

  // `intercept` waited for as long as the command may.
  test("waits for no manager that stands and says nothing", async () => {
    const manager = stack.use(await testManager({ guard: anything }));
    const cluster = new Cluster(manager);
    const clock = new FakeClock();
    const session = stack.use(await openSession(cluster, "ada@laptop", noNetwork, { clock }));
    const { registry } = manager;
    const create = registry.create.bind(registry);
    registry.create = () => new Promise<never>(() => undefined);
    const failed = session.intercept(params(1), quiet, never).catch((error: unknown) => error);
    let over = false;
    void failed.then(() => (over = true));
    for (let passedMs = 0; passedMs < 20_000 && !over; passedMs += 500) {
      await clock.advance(500);
      await session.everybody(never); // a question and its answer: the link is heard
    }
    expect(over).toBe(true);
    expect(String(await failed)).toMatch("the traffic-manager's answer took longer than 10 s");
    registry.create = create;
  });

  test("tells that it is reconnecting while the manager is away, and refuses an intercept with the reason", async () => {
    const { cluster, session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await cluster.manager[Symbol.asyncDispose]();
    await expect.poll(async () => (await session.status(never)).state).toBe("Reconnecting");
    expect(session.intercepts.map((info) => info.state)).toEqual(["suspended"]);
    await expect(session.intercept(params(1, "other"), quiet, never)).rejects.toMatchObject({
      code: "manager_unavailable",
    });
    const { workloads, warnings } = await session.list(undefined, never);
    expect(workloads.map((item) => item.intercepts.length)).toEqual([1]);
    expect(warnings).toHaveLength(1);
    await session.leave("hello", never);
    expect(session.intercepts).toEqual([]);
  });
});

describe("revoke()", () => {
  test("ends another person's intercept, whose owner is told who did it", async () => {
    const { cluster, session: ada, processPort } = await lab();
    await ada.intercept(params(processPort), quiet, never);
    const over = ada.interceptEnded("hello");
    const bob = stack.use(await openSession(cluster, "bob@desk"));
    expect((await bob.revoke({ name: "hello", find: true }, never)).client).toBe("ada@laptop");
    expect(ada.intercepts).toHaveLength(1);
    await bob.revoke({ name: "hello", user: "ada", find: false }, never);
    expect(await over).toMatch(/^the intercept hello was revoked by bob@desk at \d\d:\d\d$/);
    expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("application:x");
    expect(ada.intercepts).toEqual([]);
    expect((await ada.status(never)).intercepts).toMatchObject([
      { state: "removed", message: expect.stringMatching(/^was revoked by bob@desk at /) },
    ]);
    expect(cluster.news).toContain("InterceptRevoked on hello");
    await expect(ada.leave("hello", never)).rejects.toThrow(
      /^there is no intercept named hello any more: it was revoked/,
    );
    expect((await ada.status(never)).intercepts).toEqual([]);
    // Nobody keeps ada from asking for it again, and then there is nothing to tell any more.
    await ada.intercept(params(processPort), quiet, never);
    await bob.revoke({ name: "hello", find: false }, never);
    await ada.intercept(params(processPort), quiet, never);
    expect((await ada.status(never)).intercepts).toMatchObject([{ state: "active" }]);
  });

  test("is for those who may run programs in the pods, and says so to the others", async () => {
    const { cluster, session: ada, processPort } = await lab();
    await ada.intercept(params(processPort), quiet, never);
    const bob = stack.use(await openSession(cluster, "bob@desk"));
    cluster.execError = new AppError("forbidden", 'user "bob" may not create pods/exec in namespace shop');
    await expect(bob.revoke({ name: "hello", find: false }, never)).rejects.toMatchObject({
      code: "forbidden",
      hint: expect.stringContaining("`pods/exec` in namespace shop"),
    });
    expect(ada.intercepts).toMatchObject([{ state: "active" }]);
  });

  test("is not for one's own, and names what there is when the name is unknown", async () => {
    const { cluster, session: ada, processPort } = await lab();
    await ada.intercept(params(processPort), quiet, never);
    await expect(ada.revoke({ name: "hello", find: false }, never)).rejects.toMatchObject({
      message: expect.stringContaining("telepresence leave hello"),
    });
    const bob = stack.use(await openSession(cluster, "bob@desk"));
    await expect(bob.revoke({ name: "helo", find: false }, never)).rejects.toMatchObject({
      code: "intercept_not_found",
      hint: "intercepted now: hello (Deployment hello in namespace shop) by ada@laptop",
      fields: { known: ["hello"] },
    });
  });

  test("of a laptop that is away is told when it is back, and is not announced again", async () => {
    const { cluster, session: ada, processPort } = await lab();
    await ada.intercept(params(processPort), quiet, never);
    const over = ada.interceptEnded("hello");
    const { manager } = cluster;
    const { openManager } = cluster;
    const away = Promise.withResolvers<void>();
    cluster.openManager = async () => {
      await away.promise;
      return await openManager.call(cluster);
    };
    cluster.cutManager();
    await expect.poll(() => manager.registry.list()[0]?.state).toBe("suspended");
    const others = new Cluster(manager);
    others.doorOf = (podName) => cluster.doorOf(podName);
    for (const [name, agent] of cluster.agents) others.agents.set(name, agent);
    const bob = stack.use(await openSession(others, "bob@desk"));
    await bob.revoke({ name: "hello", find: false }, never);
    away.resolve();
    expect(await over).toContain("was revoked by bob@desk");
    expect(manager.registry.list()).toEqual([]);
  });
});

describe("an owner who has been away for long", () => {
  test("makes way, and both are told", async () => {
    const { cluster, session: ada, processPort } = await lab(["hello-1"], 0);
    await ada.intercept(params(processPort), quiet, never);
    const over = ada.interceptEnded("hello");
    const { openManager } = cluster;
    const away = Promise.withResolvers<void>();
    cluster.openManager = async () => {
      await away.promise;
      return await openManager.call(cluster);
    };
    cluster.cutManager();
    await expect.poll(() => cluster.manager.registry.list()[0]?.state).toBe("suspended");
    const others = new Cluster(cluster.manager);
    others.resolve = cluster.resolve;
    for (const [name, agent] of cluster.agents) others.agents.set(name, agent);
    const bob = stack.use(await openSession(others, "bob@desk"));
    const { warnings } = await bob.intercept(params(processPort, "mine"), quiet, never);
    expect(warnings).toMatchObject([
      expect.stringMatching(
        /^it took over from the intercept hello of ada@laptop, whose laptop has been away since \d/,
      ),
    ]);
    away.resolve();
    expect(await over).toMatch(
      /^the intercept hello was taken over by bob@desk at .*, because this laptop had been away$/,
    );
    expect(cluster.manager.registry.list().map(({ client }) => client)).toEqual(["bob@desk"]);
  });
});

describe("why()", () => {
  test("asks every pod of the intercept, of a team mate's too, and names what could not answer", async () => {
    const { cluster, session: ada, processPort } = await lab(["hello-1", "hello-2"]);
    await ada.intercept(params(processPort), quiet, never);
    await ask(portOf(cluster.agents.get("hello-2")), "x");
    const question = { limit: 20 };
    const { workloads, warnings } = await ada.why(question, never);
    expect(warnings).toEqual([]);
    expect(workloads).toMatchObject([
      {
        workload,
        intercepts: [{ client: "ada@laptop", mine: true }],
        pods: [
          { podName: "hello-1", decisions: [] },
          { podName: "hello-2", decisions: [{ answeredBy: "laptop" }] },
        ],
      },
    ]);
    const bob = stack.use(await openSession(cluster, "bob@desk"));
    await expect(bob.why(question, never)).rejects.toMatchObject({ code: "intercept_not_found" });
    expect((await bob.why({ ...question, name: "hello" }, never)).workloads).toMatchObject([
      { intercepts: [{ client: "ada@laptop", mine: false }] },
    ]);
    await expect(bob.why({ ...question, name: "other" }, never)).rejects.toMatchObject({
      message: "nothing intercepts other in namespace shop, so its application gets all requests",
      hint: expect.stringContaining("`telepresence intercept other` would"),
    });
    await cluster.agents.get("hello-1")?.[Symbol.asyncDispose]();
    expect((await ada.why(question, never)).warnings).toMatchObject([
      expect.stringMatching(/^the traffic-agent in pod hello-1 did not answer: /),
    ]);
  });
});
