// Trap 26: a create that failed half-way left its intercept in the list, and the name and the port with it. Here every
// step of a create fails in every way, and then there is nothing: not in the list, not at the manager, not in the agent,
// not on the laptop. What a broken API server leaves in the cluster is in installer/rollout.test.ts.
import { describe, expect, test } from "vitest";
import { AppError, toAppError } from "#base/error.ts";
import type { Session } from "#daemon/session.ts";
import { anything, ask, never, testManager, tick, workload } from "#test/flow/manager/harness.ts";
import { lab, params, portOf, quiet, stack, type Cluster, type Lab } from "./session-lab.ts";

type Step = (run: () => unknown) => unknown;

/** Each puts `around` about one step of a create, the first time that it is taken. */
const steps: Readonly<Record<string, (cluster: Cluster, around: Step) => void>> = {
  "the workload is resolved": (cluster, around) => once(cluster, "resolve", around),
  "the manager creates it": (cluster, around) => once(cluster.manager.registry, "create", around),
  "the pods are followed": (cluster, around) => once(cluster, "watchPods", around),
  "the agent is brought": (cluster, around) => once(cluster, "inject", around),
  "the agent is introduced": (cluster, around) => once(cluster, "openIntroduction", around),
  "the environment is read": (cluster, around) => once(cluster, "readEnvironment", around),
  "the volumes are copied": (cluster, around) => once(cluster, "copyVolumes", around),
  "a canary is expected": (cluster, around) =>
    once(cluster, "openIntroduction", (introduce) => {
      once(cluster, "openIntroduction", around);
      return introduce();
    }),
};

/** Those that never end, or whose result would be lost and not undone by whoever made it. */
const neverDone = ["the pods are followed", "the volumes are copied"];

/** What happens at it. `gone` ends the command, whose signal the step may not heed. */
const faults: Readonly<Record<string, (prepared: Prepared, gone: (error: AppError) => void) => Step>> = {
  "it fails": () => () => Promise.reject(broken()),
  "it fails when it was done": () => async (run) => {
    await run();
    throw broken();
  },
  "the command is gone": (_, gone) => (run) => {
    gone(new AppError("cancelled", "the command ended"));
    return run();
  },
  "the command is gone when it was done": (_, gone) => async (run) => {
    const result = await run();
    gone(new AppError("cancelled", "the command ended"));
    return result;
  },
  "the transport is lost": (prepared) => (run) => {
    prepared.cluster.cutManager();
    return run();
  },
  "the transport is lost when it was done": (prepared) => async (run) => {
    const result = await run();
    prepared.cluster.cutManager();
    return result;
  },
  "the manager is replaced": (prepared) => (run) => {
    prepared.replaced = replaceManager(prepared.cluster);
    return run();
  },
  "the manager is replaced when it was done": (prepared) => async (run) => {
    const result = await run();
    prepared.replaced = replaceManager(prepared.cluster);
    return result;
  },
};

/** A machine that does other things too takes its time. */
const within = { timeout: 10_000 };
const broken = (): AppError => new AppError("internal", "broken by the test");

function once<Name extends string, Of extends Record<Name, (...args: never[]) => unknown>>(
  of: Of,
  name: Name,
  around: Step,
): void {
  const original = of[name];
  const replacement = (...args: never[]): unknown => {
    of[name] = original;
    return around(() => original.apply(of, args));
  };
  of[name] = replacement as Of[Name];
}

/** Another one in its place, which knows nothing. */
async function replaceManager(cluster: Cluster): Promise<void> {
  const old = cluster.manager;
  await old[Symbol.asyncDispose]();
  const config = { ports: { laptop: 0, agent: old.agentPort, health: 0, direct: 0 } };
  cluster.manager = stack.use(await testManager({ guard: anything, config }));
}

interface Prepared extends Lab {
  readonly create: (signal: AbortSignal) => ReturnType<Session["intercept"]>;
  replaced?: Promise<void>;
}

/** With everything that a create may do. */
async function prepare(): Promise<Prepared> {
  const prepared = await lab(["hello-1"]);
  const { session, processPort } = prepared;
  const volumes = { copy: [], limitBytes: 1 };
  const create = (signal: AbortSignal): ReturnType<Session["intercept"]> =>
    session.intercept({ ...params(processPort), volumes }, quiet, signal);
  return { ...prepared, create };
}

describe.each(Object.keys(steps))("when %s", (step) => {
  const possible = Object.keys(faults).filter((fault) => !fault.endsWith("it was done") || !neverDone.includes(step));
  test.each(possible)("and %s, the intercept is there or nothing is", async (fault) => {
    const prepared = await prepare();
    const { cluster, session, create } = prepared;
    cluster.restoreManager = () => Promise.resolve({ installed: false, warnings: [] });
    const port = portOf(cluster.agents.get("hello-1"));
    const command = new AbortController();
    let met = false;
    const around = faults[fault]!(prepared, (error) => command.abort(error));
    steps[step]!(cluster, (run) => {
      met = true;
      return around(run);
    });
    const outcome = await create(command.signal).then(
      () => "there",
      () => "nothing",
    );
    expect(met).toBe(true);
    await prepared.replaced;
    await expect.poll(async () => (await session.status(never)).state, within).toBe("Connected");
    // A command that is gone sees no intercept, and nobody else would end it.
    if (command.signal.aborted) expect(outcome).toBe("nothing");
    if (outcome === "there") {
      await expect.poll(() => session.intercepts.map(({ state }) => state), within).toEqual(["active"]);
      await expect.poll(() => ask(port, "x"), within).toBe("laptop:x");
      await session.leave("hello", never);
    }
    await expect.poll(() => cluster.manager.registry.list(), within).toEqual([]);
    expect(session.intercepts).toEqual([]);
    expect((await session.list(undefined, never)).workloads).toMatchObject([{ name: workload.name, intercepts: [] }]);
    expect(await ask(port, "x")).toBe("application:x");
    expect(cluster.volumesRemoved).toBe(cluster.volumesCopied);
    expect(cluster.watchers).toBe(0);
    // Nothing of it is in the way of the next.
    await create(never);
    await expect.poll(() => ask(port, "x"), within).toBe("laptop:x");
  });
});

test("a command that is gone when everything else is done leaves nothing", async () => {
  const { cluster, session, create } = await prepare();
  const command = new AbortController();
  let conversations = 0;
  const open = cluster.openIntroduction.bind(cluster);
  cluster.openIntroduction = (...args) => {
    conversations += 1;
    return open(...args);
  };
  cluster.readEnvironment = async () => {
    await expect.poll(() => conversations, within).toBe(3); // the introduction, and before and after the canary
    for (let turn = 0; turn < 100; turn += 1) await tick();
    command.abort(new AppError("cancelled", "the command ended"));
    return { values: {}, warnings: [] };
  };
  await expect(create(command.signal)).rejects.toMatchObject({ code: "cancelled" });
  expect(session.intercepts).toEqual([]);
  expect(cluster.manager.registry.list()).toEqual([]);
  expect([cluster.volumesCopied, cluster.volumesRemoved]).toEqual([1, 1]);
});

// What the new manager answered was noted where nobody looked any more: `leave` named an intercept that it did not know.
test("one that is complete just when another manager is told of it is left there, too", async () => {
  const { cluster, session, create } = await prepare();
  cluster.restoreManager = () => Promise.resolve({ installed: false, warnings: [] });
  let conversations = 0;
  const open = cluster.openIntroduction.bind(cluster);
  cluster.openIntroduction = (...args) => {
    conversations += 1;
    return open(...args);
  };
  const told = Promise.withResolvers<void>();
  cluster.readEnvironment = async () => {
    await expect.poll(() => conversations, within).toBe(3); // nothing else is missing
    await replaceManager(cluster);
    once(cluster.manager.registry, "create", async (run) => {
      const made = await run();
      told.resolve();
      await expect.poll(() => session.intercepts.length, within).toBe(1);
      return made;
    });
    await told.promise;
    return { values: {}, warnings: [] };
  };
  await create(never);
  await expect.poll(async () => (await session.status(never)).state, within).toBe("Connected");
  await expect.poll(() => session.intercepts.map(({ state }) => state), within).toEqual(["active"]);
  await session.leave("hello", never);
  await expect.poll(() => cluster.manager.registry.list(), within).toEqual([]);
});

// It had been told already, and there was no link yet through which to say that it is over.
test("one that is left while another manager is told of the next one is not left there", async () => {
  const { cluster, session, processPort } = await prepare();
  cluster.restoreManager = () => Promise.resolve({ installed: false, warnings: [] });
  for (const [name, port] of [
    ["hello", processPort],
    ["other", 1], // nobody calls it
  ] as const) {
    await session.intercept({ ...params(port, name), filter: `request.path == "/${name}"` }, quiet, never);
  }
  await replaceManager(cluster);
  const left = Promise.withResolvers<void>();
  once(cluster.manager.registry, "create", (first) => {
    once(cluster.manager.registry, "create", async (second) => {
      const made = await second();
      await session.leave("hello", never);
      left.resolve();
      return made;
    });
    return first();
  });
  await left.promise;
  const known = (): string[] => cluster.manager.registry.list().map(({ spec }) => spec.name);
  await expect.poll(known, within).toEqual(["other"]);
});

// Both passed the question whether the name is free before either had taken it.
test("of two commands with one name at the same moment one is refused, and the other's is untouched", async () => {
  const { cluster, session, create } = await prepare();
  const resolve = cluster.resolve.bind(cluster);
  const both = Promise.withResolvers<void>();
  let resolving = 0;
  cluster.resolve = async (request) => {
    resolving += 1;
    if (resolving === 2) both.resolve();
    await both.promise;
    return await resolve(request);
  };
  const outcomes = await Promise.allSettled([create(never), create(never)]);
  expect(outcomes.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  const refused = outcomes.find((outcome) => outcome.status === "rejected");
  expect(refused?.reason).toMatchObject({ code: "intercept_exists" });
  expect(cluster.manager.registry.list()).toHaveLength(1);
  expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("laptop:x");
  await session.leave("hello", never);
  expect(cluster.watchers).toBe(0);
  expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("application:x");
});

describe("a pod that dies while its agent is waited for", () => {
  // Trap 27: its intercept stayed in WAITING, whatever came after it.
  test("makes way for the next, with which the intercept is active", async () => {
    const { cluster, create, addPod } = await prepare();
    const knocked = Promise.withResolvers<void>();
    const open = cluster.openIntroduction.bind(cluster);
    cluster.openIntroduction = (namespace, podName) => {
      if (podName !== "hello-1") return open(namespace, podName);
      knocked.resolve();
      return Promise.reject(new AppError("refused", "nothing listens there"));
    };
    const creating = create(never);
    await knocked.promise;
    cluster.agents.delete("hello-1");
    cluster.podsChanged();
    const next = await addPod("hello-2");
    cluster.podsChanged();
    const { info } = await creating;
    expect({ state: info.state, pods: info.pods.map(({ name }) => name) }).toEqual({
      state: "active",
      pods: ["hello-2"],
    });
    expect(await ask(portOf(next), "x")).toBe("laptop:x");
  });

  test("and has no successor lets the command say so, and leaves nothing", async () => {
    const { cluster, create, session } = await prepare();
    const command = new AbortController();
    cluster.inject = () => {
      cluster.agents.clear();
      cluster.podsChanged();
      command.abort(new AppError("cancelled", "the command ended"));
      return Promise.resolve({ agent: "sidecar", warnings: [] });
    };
    await expect(create(command.signal)).rejects.toMatchObject({ code: "cancelled" });
    expect([session.intercepts, cluster.manager.registry.list()]).toEqual([[], []]);
  });
});

// Trap 43: `list` of another namespace, watches and the daemon itself came to a standstill when they met each other.
test("240 commands of every kind at once all come back", async () => {
  const { cluster, session, create } = await prepare();
  const commands = [
    () => create(never),
    () => session.list(undefined, never),
    () => session.list("elsewhere", never),
    () => session.status(never),
    () => session.leave("hello", never),
    () => Promise.resolve(cluster.podsChanged()),
  ];
  const outcomes = await Promise.allSettled(Array.from({ length: 240 }, (_, index) => commands[index % 6]!()));
  const reasons = outcomes.flatMap((outcome) =>
    outcome.status === "rejected" ? [toAppError(outcome.reason).code] : [],
  );
  // Of many with one name one has it; of many that would end it, those that are later find none.
  expect([...new Set(reasons)].filter((code) => !["intercept_exists", "intercept_not_found"].includes(code))).toEqual(
    [],
  );
  await session.leave("hello", never).catch(() => undefined);
  expect(cluster.manager.registry.list()).toEqual([]);
  expect(cluster.watchers).toBe(0);
});
