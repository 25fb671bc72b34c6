// Environment and files of a container without its traffic: the manager never hears of it, and what was copied goes with
// whatever ends it.
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import type { Session } from "#daemon/session.ts";
import { anything, ask, never, tcpServer, testManager } from "#test/flow/manager/harness.ts";
import { Cluster, lab, noNetwork, openSession, params, portOf, quiet, stack, type OpenNetwork } from "./session-lab.ts";

const volumes = { copy: [], limitBytes: 1 };
const wish = (more: object = {}): Parameters<Session["ingest"]>[0] => ({
  name: "hello",
  ownedByConnection: false,
  wantEnvironment: true,
  volumes,
  ...more,
});
const containers = (session: Session): Promise<readonly string[]> =>
  session.status(never).then(({ ingests = [] }) => ingests.map(({ containerName }) => containerName));

describe("ingest()", () => {
  test("gives environment and files, takes no traffic and tells nobody", async () => {
    const { cluster, session } = await lab();
    const { info, environment, volumes: copied, warnings } = await session.ingest(wish(), quiet, never);
    expect(info).toMatchObject({ containerName: "app", podName: "hello-1", mountPoint: "/run/copies" });
    expect({ environment, copied, warnings }).toEqual({
      environment: { GREETING: "hello" },
      copied: { root: "/run/copies", mounts: ["/etc/app"] },
      warnings: [],
    });
    expect(await ask(portOf(cluster.agents.get("hello-1")), "x")).toBe("application:x");
    expect({ everybody: await session.everybody(never), readers: cluster.readersInjected }).toEqual({
      everybody: [],
      readers: [],
    });
    expect((await session.list(undefined, never)).workloads[0]?.ingests).toEqual([info]);
    await session.leave("hello", never);
    expect({ left: await containers(session), removed: cluster.volumesRemoved }).toEqual({ left: [], removed: 1 });
  });

  test("is of several containers at once, of each only once", async () => {
    const { cluster, session } = await lab();
    for (const container of ["app", "beside"]) await session.ingest(wish({ container }), quiet, never);
    await expect(session.ingest(wish(), quiet, never)).rejects.toThrow(
      "container app of Deployment hello is ingested already",
    );
    await session.leave("hello", never, { container: "beside" });
    expect(await containers(session)).toEqual(["app"]);
    await expect(session.leave("hello", never, { container: "beside" })).rejects.toThrow("there is no ingest of hello");
    await session[Symbol.asyncDispose](); // as `quit`
    expect(cluster.volumesRemoved).toBe(2);
  });

  test("two at the same moment are one", async () => {
    const { session } = await lab();
    const both = await Promise.allSettled([session.ingest(wish(), quiet, never), session.ingest(wish(), quiet, never)]);
    expect(both.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    expect(await containers(session)).toEqual(["app"]);
  });

  test("stays when the intercept of that name ends with its command, and goes with `leave`", async () => {
    const { session, processPort } = await lab();
    await session.intercept(params(processPort), quiet, never);
    await session.ingest(wish(), quiet, never);
    await session.leave("hello", never, { only: "intercept" }); // as its command's connection does
    expect(await containers(session)).toEqual(["app"]);
    await session.intercept(params(processPort), quiet, never);
    await session.leave("hello", never);
    expect({ ingests: await containers(session), intercepts: session.intercepts }).toEqual({
      ingests: [],
      intercepts: [],
    });
  });

  test("lives on while the manager is away", async () => {
    const { cluster, session } = await lab();
    cluster.cutManager();
    await session.ingest(wish(), quiet, never);
    expect(await containers(session)).toEqual(["app"]);
  });
});

describe("--local-only", () => {
  test("has its namespace's names looked up until it is left, and no intercept ends it", async () => {
    const manager = stack.use(await testManager({ guard: anything }));
    const seen: (readonly string[])[] = [];
    const openNetwork: OpenNetwork = async (...parts) => ({
      ...(await noNetwork(...parts)),
      setAlsoNamespaces: (namespaces) => void seen.push(namespaces),
    });
    const session = stack.use(await openSession(new Cluster(manager), "ada@laptop", openNetwork));
    session.beginLocalOnly("dev", "other");
    session.beginLocalOnly("more", "other");
    expect(() => session.beginLocalOnly("dev")).toThrow("there is already an intercept named dev");
    expect((await session.status(never)).localOnly).toEqual([
      { name: "dev", namespace: "other" },
      { name: "more", namespace: "other" },
    ]);
    await expect(session.leave("dev", never, { only: "intercept" })).rejects.toThrow("no intercept named dev");
    const ended = session.localOnlyEnded("dev");
    await session.leave("dev", never);
    await ended;
    await session.leave("more", never);
    expect(seen).toEqual([["other"], ["other"], ["other"], []]);
  });
});

describe("--to-pod", () => {
  /** A port that is free on 127.0.0.1, and what listens there in the pod. */
  async function sidecar(name: string): Promise<{ readonly port: number; readonly inPod: number }> {
    const free = await tcpServer(() => undefined);
    await free[Symbol.asyncDispose]();
    return { port: free.port, inPod: stack.use(await tcpServer((socket) => socket.end(name))).port };
  }
  const refused = (port: number): Promise<unknown> =>
    ask(port, "").then(
      () => "an answer",
      (error: NodeJS.ErrnoException) => error.code,
    );

  test("brings the pod's own loopback to an ingest and to an intercept, and ends with each", async () => {
    const { cluster, session, processPort } = await lab();
    const { port, inPod } = await sidecar("cache");
    cluster.podPorts.set(`hello-1:${port}`, inPod);
    const toPod = [{ port, protocol: "tcp" as const }];
    expect((await session.ingest(wish({ toPod }), quiet, never)).info.toPod).toEqual(toPod);
    expect(await ask(port, "")).toBe("cache");
    await expect(session.intercept({ ...params(processPort), toPod }, quiet, never)).rejects.toMatchObject({
      code: "port_in_use",
    });
    expect(await session.everybody(never)).toEqual([]);
    await session.leave("hello", never);
    expect(await refused(port)).toBe("ECONNREFUSED");
    expect((await session.intercept({ ...params(processPort), toPod }, quiet, never)).info.toPod).toEqual(toPod);
    expect(await ask(port, "")).toBe("cache");
    cluster.cutManager(); // it is not by way of the manager
    expect(await ask(port, "")).toBe("cache");
    await session[Symbol.asyncDispose]();
    expect(await refused(port)).toBe("ECONNREFUSED");
  });
  test("goes to the next pod when one is replaced, and is given back when the ingest fails", async () => {
    const { cluster, session, addPod } = await lab();
    const { port, inPod } = await sidecar("second");
    cluster.podPorts.set(`hello-2:${port}`, inPod);
    const toPod = [{ port, protocol: "tcp" as const }];
    cluster.environmentError = new AppError("forbidden", "you may not create pods/exec in namespace shop");
    await expect(session.ingest(wish({ toPod }), quiet, never)).rejects.toThrow("pods/exec");
    cluster.environmentError = undefined;
    await session.ingest(wish({ toPod }), quiet, never);
    expect(await refused(port)).toBe("ECONNRESET");
    await addPod("hello-2");
    cluster.agents.delete("hello-1");
    cluster.podsChanged();
    expect(await ask(port, "")).toBe("second");
  });
});

describe("a container without programs", () => {
  test("is read by the agent that is there", async () => {
    const { cluster, session } = await lab();
    cluster.withoutPrograms.add("app");
    await session.ingest(wish(), quiet, never);
    expect(cluster.readersInjected).toEqual([]);
  });
  test("gets an agent where there is none, and so do later pods", async () => {
    const { cluster, session } = await lab([]);
    const attached: string[] = [];
    cluster.agentKind = "ephemeral";
    cluster.withoutPrograms.add("app");
    cluster.bare.add("hello-1");
    cluster.started = () => Promise.resolve();
    cluster.onAttach = async (podName) => {
      attached.push(podName);
      cluster.bare.delete(podName);
      cluster.readers.add(podName);
      cluster.podsChanged();
    };
    await session.ingest(wish(), quiet, never);
    cluster.bare.add("hello-2");
    cluster.podsChanged();
    await expect.poll(() => attached).toEqual(["hello-1", "hello-2"]);
    expect(cluster.readersInjected).toEqual(["auto"]);
  });
  test("is ingested without one where none may come, and that is said", async () => {
    const { cluster, session } = await lab([]);
    cluster.withoutPrograms.add("app");
    cluster.bare.add("hello-1");
    cluster.injectError = new AppError("forbidden", "you may not patch pods/ephemeralcontainers in namespace shop");
    const { warnings } = await session.ingest(wish(), quiet, never);
    expect(warnings).toEqual([
      "no traffic-agent could be brought to read the container with: you may not patch pods/ephemeralcontainers in namespace shop",
    ]);
    await expect(session.ingest(wish({ container: "other", agent: "ephemeral" }), quiet, never)).rejects.toThrow(
      "you may not patch",
    );
  });
});

test("an ingest that is still beginning ends with its connection", async () => {
  const { cluster, session } = await lab([]);
  cluster.agentKind = "ephemeral";
  cluster.withoutPrograms.add("app");
  cluster.bare.add("hello-1");
  const begun = Promise.withResolvers<void>();
  cluster.started = (signal) => {
    begun.resolve();
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error)));
  };
  const failure = session.ingest(wish(), quiet, never).catch((error: unknown) => error);
  await begun.promise;
  await session[Symbol.asyncDispose]();
  expect(await failure).toMatchObject({ code: "cancelled" });
});

describe("a step that fails", () => {
  test("leaves nothing: what cannot be read is the error itself", async () => {
    const { cluster, session } = await lab();
    cluster.environmentError = new AppError("forbidden", "you may not create pods/exec in namespace shop");
    await expect(session.ingest(wish(), quiet, never)).rejects.toThrow("you may not create pods/exec");
    expect({ left: await containers(session), removed: cluster.volumesRemoved }).toEqual({ left: [], removed: 1 });
    cluster.environmentError = undefined;
    cluster.volumesError = new AppError("forbidden", "you may not get secrets in namespace shop");
    await expect(session.ingest(wish(), quiet, never)).rejects.toThrow("you may not get secrets");
    cluster.volumesError = undefined;
    await session.ingest(wish(), quiet, never);
  });
});
