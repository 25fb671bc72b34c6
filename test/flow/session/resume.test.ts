// A laptop's link that loses its transport (PROTOCOL §6.5), daemon and manager being real. The trap: with the port-forward
// every rival loses the connections into the cluster, and its intercepts until somebody notices.
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { systemClock, type Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { ManagerLink } from "#daemon/link/manager-link.ts";
import { anything, ask, never, tcpServer, testManager } from "#test/flow/manager/harness.ts";
import { Cluster, ended, lab, noNetwork, openSession, params, portOf, quiet, stack } from "./session-lab.ts";

/** Waits for what never comes. */
async function rejected(signal: AbortSignal): Promise<never> {
  await ended(signal);
  throw signal.reason;
}

describe("a link whose transport is lost", () => {
  /** A session that tells which tunnel session carries it. */
  async function linked(clock: Clock = systemClock, managerClock = systemClock) {
    const made = await lab(["hello-1"], undefined, managerClock);
    const { cluster } = made;
    const others = new Cluster(cluster.manager);
    others.resolve = cluster.resolve;
    for (const [name, agent] of cluster.agents) others.agents.set(name, agent);
    let link: ManagerLink | undefined;
    const session = stack.use(
      await openSession(
        others,
        "eve@laptop",
        (opened, first, scope) => {
          link = opened;
          return noNetwork(opened, first, scope);
        },
        { clock },
      ),
    );
    if (link === undefined) throw new Error("there is a link");
    return { ...made, cluster: others, agents: others.agents, session, link };
  }

  test("goes on: what is open in the cluster loses no byte in 10 cuts, and the session is the same", async () => {
    const { cluster, link } = await linked();
    const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
    stack.use({ [Symbol.dispose]: () => void echo.close() });
    await once(echo, "listening");
    const before = link.require();
    const { port } = echo.address() as AddressInfo;
    const stream = await before.session.open({ kind: "tcp", target: { address: "127.0.0.1", port } }, never);
    const sent = randomBytes(8 * 1024 * 1024);
    const received: Buffer[] = [];
    let receivedBytes = 0;
    const cutAt = Array.from({ length: 10 }, (_, index) => ((index + 1) * sent.length) / 12);
    stream.on("data", (chunk: Buffer) => {
      received.push(chunk);
      receivedBytes += chunk.length;
      if (receivedBytes < (cutAt[0] ?? Number.POSITIVE_INFINITY)) return;
      cutAt.shift();
      cluster.cutManager();
    });
    stream.end(sent);
    await once(stream, "end");
    expect(cutAt).toEqual([]);
    expect(Buffer.concat(received).equals(sent)).toBe(true);
    await expect.poll(() => link.current).toBe(before);
  });

  test("goes on also when the next one ends with the answer by which it takes over", async () => {
    const { cluster, link } = await linked();
    const echo = stack.use(await tcpServer((socket) => void socket.pipe(socket)));
    const target = { address: "127.0.0.1", port: echo.port };
    const stream = await link.require().session.open({ kind: "tcp", target }, never);
    const openManager = cluster.openManager.bind(cluster);
    cluster.openManager = async () => {
      cluster.openManager = openManager;
      const transport = await openManager();
      return transport.once("data", () => process.nextTick(() => transport.emit("end")));
    };
    const { ups } = link;
    cluster.cutManager();
    await expect.poll(() => link.ups).toBeGreaterThanOrEqual(ups + 2);
    stream.write("still here");
    expect(String((await once(stream, "data"))[0])).toBe("still here");
    expect(link.changes).toEqual({ lost: 2, replaced: 0, renewed: 0 });
  });

  test("gives callers to the application at once, and has its intercepts again", async () => {
    const { cluster, session, link, processPort } = await linked();
    await session.intercept(params(processPort), quiet, never);
    const before = link.require();
    const { registry } = cluster.manager;
    const states: string[] = [];
    const openManager = cluster.openManager.bind(cluster);
    cluster.openManager = async () => {
      await expect.poll(() => registry.list()[0]?.state).toBe("suspended");
      states.push(...session.intercepts.map(({ state }) => state));
      return await openManager();
    };
    cluster.cutManager();
    await expect.poll(() => states).toEqual(["suspended"]);
    await expect.poll(() => session.intercepts.map(({ state }) => state)).toEqual(["active"]);
    expect(link.current).toBe(before);
    expect((await session.status(never)).linkChanges).toEqual({ lost: 1, replaced: 0, renewed: 0 });
    expect(registry.list().map(({ sessionId }) => sessionId)).toEqual([before.arrival.sessionId]);
  });

  describe("with callers' connections", () => {
    /** A laptop that is away until `comeBack`, and the manager's patience with it. */
    async function away(process = (socket: Socket): void => void socket.pipe(socket)) {
      let giveUp: () => void = () => undefined;
      const made = await linked(systemClock, {
        ...systemClock,
        after: (ms, callback) => {
          if (ms !== 120_000) return systemClock.after(ms, callback);
          giveUp = callback;
          return systemClock.after(ms, callback).unref();
        },
      });
      const { cluster, session, link, agents } = made;
      const echo = stack.use(await tcpServer(process));
      await session.intercept(params(echo.port), quiet, never);
      const { openManager } = cluster;
      const back = Promise.withResolvers<void>();
      const goAway = async (): Promise<void> => {
        cluster.openManager = async (signal = never) => {
          await Promise.race([back.promise, rejected(signal)]);
          return await openManager.call(cluster, signal);
        };
        cluster.cutManager();
        await expect.poll(() => link.current).toBeUndefined();
      };
      const port = portOf(agents.get("hello-1"));
      return { ...made, echo, port, goAway, comeBack: () => back.resolve(), giveUp: () => giveUp() };
    }

    async function say(caller: Socket, text: string): Promise<string> {
      caller.write(text);
      return String((await once(caller, "data"))[0]);
    }

    test("keeps those that are bytes until it is back, and gives new ones to the application within 100 ms", async () => {
      const { port, goAway, comeBack, link } = await away();
      const caller = connect({ port, allowHalfOpen: true });
      expect(await say(caller, "\u0001before")).toBe("\u0001before");
      const before = performance.now();
      await goAway();
      caller.write("meanwhile");
      await expect.poll(() => ask(port, "\u0001new"), { interval: 1 }).toBe("application:\u0001new");
      expect(performance.now() - before).toBeLessThan(500);
      comeBack();
      expect(String((await once(caller, "data"))[0])).toBe("meanwhile");
      await expect.poll(() => link.current).toBeDefined();
      expect(await say(caller, "after")).toBe("after");
      caller.end();
      await once(caller, "end");
    });

    test("resets them when it is away for two minutes", async () => {
      const { port, goAway, comeBack, giveUp, echo } = await away();
      const caller = connect({ port, allowHalfOpen: true }).on("error", () => undefined);
      await say(caller, "\u0001before");
      await goAway();
      giveUp();
      expect(await once(caller, "error")).toMatchObject([{ code: "ECONNRESET" }]);
      comeBack();
      await expect.poll(() => echo.connections.size).toBe(0);
    });

    // An agent of an earlier version would leave requests unanswered for as long.
    test("resets them at once where the agent does not know of it", async () => {
      const { cluster, port, goAway, comeBack } = await away();
      const { registry } = cluster.manager;
      const route = registry.route.bind(registry);
      registry.route = (agent, request) => {
        Object.assign(agent.link, { suspends: false });
        return route(agent, request);
      };
      const caller = connect({ port, allowHalfOpen: true }).on("error", () => undefined);
      await say(caller, "\u0001before");
      const reset = once(caller, "error");
      await goAway();
      expect(await reset).toMatchObject([{ code: "ECONNRESET" }]);
      comeBack();
    });

    test("takes little of a caller who goes on to send", async () => {
      const { port, goAway, giveUp } = await away();
      const caller = connect({ port, allowHalfOpen: true }).on("error", () => undefined);
      await say(caller, "\u0001before");
      await goAway();
      const chunk = Buffer.alloc(256 * 1024);
      let bytes = 0;
      const send = (): void => {
        while (bytes < 64 * 1024 * 1024 && caller.write(chunk)) bytes += chunk.length;
      };
      caller.on("drain", send);
      send();
      let last = -1;
      await expect
        .poll(
          () => {
            const isStill = bytes === last;
            last = bytes;
            return isStill;
          },
          { interval: 200 },
        )
        .toBe(true);
      expect(bytes).toBeLessThan(32 * 1024 * 1024); // most of it in the kernel's buffers of three connections
      giveUp();
      await new Promise((resolve) => caller.once("close", resolve));
    });

    // Nobody has had a byte of it: the application may have it.
    test("does not keep those that have said nothing yet", async () => {
      const { port, goAway, echo } = await away();
      // Not the manager's address: that might be a canary.
      const caller = connect({ port, localAddress: "127.0.0.2", allowHalfOpen: true });
      await expect.poll(() => echo.connections.size).toBe(1);
      await goAway();
      caller.end("\u0001late");
      expect(String((await once(caller, "data"))[0])).toBe("application:\u0001late");
    });
  });

  test("begins anew with a manager that does not know it", async () => {
    const { cluster, session, link, processPort } = await linked();
    await session.intercept(params(processPort), quiet, never);
    const before = link.require();
    cluster.manager = stack.use(await testManager({ guard: anything }));
    cluster.cutManager();
    await expect.poll(() => link.current !== undefined && link.current !== before).toBe(true);
    expect(await before.session.closed).toMatchObject({ code: "cancelled" });
    expect((await session.status(never)).linkChanges).toEqual({ lost: 1, replaced: 0, renewed: 1 });
    expect(cluster.manager.registry.list().map(({ spec }) => spec.name)).toEqual(["hello"]);
  });

  // Its caller was told that it failed: it must not come to life with the link.
  test("removes what was asked for while it was being lost", async () => {
    const { cluster, session, link, processPort } = await linked();
    const { registry } = cluster.manager;
    const create = registry.create.bind(registry);
    registry.create = async (...args) => {
      const info = await create(...args);
      cluster.cutManager(); // the answer does not reach the laptop
      return info;
    };
    await expect(session.intercept(params(processPort), quiet, never)).rejects.toMatchObject({ code: "link_lost" });
    await expect.poll(() => link.current !== undefined).toBe(true);
    await expect.poll(() => registry.list()).toEqual([]);
  });

  // The manager has forgotten it, so nothing would ever end what is open in the cluster.
  test("ends when its laptop has departed before", async () => {
    const { cluster, link } = await linked();
    const server = stack.use(await tcpServer((socket) => void socket.resume()));
    const { session, rpc } = link.require();
    const stream = await session.open({ kind: "tcp", target: { address: "127.0.0.1", port: server.port } }, never);
    stream.on("error", () => undefined);
    await expect.poll(() => server.connections.size).toBe(1);
    await rpc.call("depart", {}, never);
    cluster.openManager = () => Promise.reject(new AppError("unreachable", "the network is away"));
    cluster.cutManager();
    await expect.poll(() => server.connections.size).toBe(0);
  });

  // Nobody is told that it is over; it must not hold what was open in the cluster for ever.
  test("ends when its laptop quits without a link and connects again", async () => {
    const { cluster, link, session } = await linked();
    const server = stack.use(await tcpServer((socket) => void socket.resume()));
    const target = { address: "127.0.0.1", port: server.port };
    const stream = await link.require().session.open({ kind: "tcp", target }, never);
    stream.on("error", () => undefined);
    await expect.poll(() => server.connections.size).toBe(1);
    const { openManager } = cluster;
    cluster.openManager = () => Promise.reject(new AppError("unreachable", "the network is away"));
    cluster.cutManager();
    await session[Symbol.asyncDispose]();
    expect(server.connections.size).toBe(1);
    cluster.openManager = openManager;
    stack.use(await openSession(cluster, "eve@laptop"));
    await expect.poll(() => server.connections.size).toBe(0);
  });

  test("is found once more by who quits, to say so", async () => {
    const { cluster, link, session } = await linked();
    const server = stack.use(await tcpServer((socket) => void socket.resume()));
    const target = { address: "127.0.0.1", port: server.port };
    const stream = await link.require().session.open({ kind: "tcp", target }, never);
    stream.on("error", () => undefined);
    const { openManager } = cluster;
    const failures = [new AppError("unreachable", "the network is away"), new AppError("unreachable", "still")];
    cluster.openManager = () => {
      const failure = failures.pop();
      return failure === undefined ? openManager.call(cluster) : Promise.reject(failure);
    };
    cluster.cutManager();
    await expect.poll(() => link.current).toBeUndefined();
    await session[Symbol.asyncDispose]();
    await expect.poll(() => server.connections.size).toBe(0);
  });

  test("introduces nobody again who still is", async () => {
    const { cluster, session, link, processPort } = await linked();
    await session.intercept(params(processPort), quiet, never);
    const openIntroduction = cluster.openIntroduction.bind(cluster);
    let introductions = 0;
    cluster.openIntroduction = async (...args) => {
      introductions += 1;
      return await openIntroduction(...args);
    };
    const { ups } = link;
    cluster.cutManager();
    await expect.poll(() => link.ups).toBeGreaterThan(ups);
    await expect.poll(() => session.intercepts.map(({ state }) => state)).toEqual(["active"]);
    expect(introductions).toBe(0);
  });

  test("is there for the command that found it lost, as soon as it is back", { timeout: 5000 }, async () => {
    const { cluster, session, link } = await linked();
    cluster.restoreManager = async () => {
      await expect.poll(() => link.current !== undefined).toBe(true);
      return { installed: false, warnings: [] };
    };
    const restoring = session.restore(quiet, never);
    cluster.cutManager();
    await restoring;
  });

  test("does not keep the cluster busy with transports that are lost at once", async () => {
    const pausesMs: number[] = [];
    const { cluster } = await linked({
      ...systemClock,
      sleep: (ms, signal) => {
        pausesMs.push(ms);
        return new FakeClock().sleep(ms, signal);
      },
    });
    const openManager = cluster.openManager.bind(cluster);
    let opened = 0;
    cluster.openManager = async () => {
      opened += 1;
      const transport = await openManager();
      transport.once("data", () => setImmediate(() => transport.destroy()));
      return transport;
    };
    cluster.cutManager();
    await expect.poll(() => pausesMs.length > 0 || opened > 30).toBe(true);
    expect(opened).toBeLessThan(30);
  });

  test("is tried again when the cluster's API does not find its pod", async () => {
    const { cluster, link } = await linked();
    const before = link.require();
    const openManager = cluster.openManager.bind(cluster);
    const failures = [new AppError("not_found", "pod traffic-manager was not found")];
    cluster.openManager = async () => {
      const failure = failures.pop();
      if (failure !== undefined) throw failure;
      return await openManager();
    };
    cluster.cutManager();
    await expect.poll(() => failures.length === 0 && link.current !== undefined).toBe(true);
    expect(link.current).toBe(before);
  });

  describe("or may be", () => {
    /** A link that is asked to move whenever `grow` is called, and how often it was said to be down. */
    async function aging() {
      let grow: (() => void) | undefined;
      const made = await linked({
        ...systemClock,
        sleep: (ms, signal) => {
          if (ms < 30 * 60_000) return systemClock.sleep(ms, signal);
          expect(ms).toBeLessThan(55 * 60_000);
          return Promise.race([new Promise<void>((resolve) => (grow = resolve)), rejected(signal)]);
        },
      });
      const { cluster } = made;
      const openManager = cluster.openManager.bind(cluster);
      const transports: Duplex[] = [];
      cluster.openManager = async () => {
        const transport = await openManager();
        transports.push(transport);
        return transport;
      };
      const growOld = async (): Promise<void> => {
        await expect.poll(() => grow, { interval: 2 }).toBeDefined();
        grow?.();
        grow = undefined;
      };
      return { ...made, transports, growOld };
    }

    // The trap: balancers and API servers cut every port-forward after an hour.
    test("is left before it is an hour old, and nobody notices", async () => {
      const { cluster, session, link, transports, growOld, agents } = await aging();
      const greeter = stack.use(await tcpServer((socket) => void socket.pipe(socket)));
      await session.intercept(params(greeter.port), quiet, never);
      const caller = connect(portOf(agents.get("hello-1")), "127.0.0.1");
      const before = link.require();
      const { ups } = link;
      const states = new Set<string>();
      const { registry } = cluster.manager;
      const heard: Buffer[] = [];
      caller.on("data", (chunk: Buffer) => heard.push(chunk));
      const sent = randomBytes(4 * 1024 * 1024);
      for (let at = 0, moves = 0; at < sent.length; at += 256 * 1024) {
        caller.write(sent.subarray(at, at + 256 * 1024));
        await growOld();
        moves += 1;
        await expect.poll(() => transports.length, { interval: 2 }).toBe(moves);
        for (const { state } of registry.list()) states.add(state);
        expect(link.current).toBe(before);
      }
      caller.end();
      await once(caller, "end");
      expect(Buffer.concat(heard).equals(sent)).toBe(true);
      expect([...states, link.ups]).toEqual(["active", ups]);
      expect(link.changes).toEqual({ lost: 0, replaced: 16, renewed: 0 });
      await expect.poll(() => transports.filter(({ destroyed }) => !destroyed)).toHaveLength(1);
    });

    test("is kept when there is no other, and left when there is", async () => {
      const { cluster, link, transports, growOld } = await aging();
      const { openManager } = cluster;
      const failures = [new AppError("unreachable", "the network is away"), new AppError("timeout", "no answer")];
      const before = link.require();
      cluster.openManager = () => {
        const failure = failures.pop();
        return failure === undefined ? openManager() : Promise.reject(failure);
      };
      await growOld();
      await expect.poll(() => transports.length).toBe(1);
      expect(failures).toEqual([]);
      expect(link.current).toBe(before);
    });

    test("is another session's when the next one does not know it", async () => {
      const { cluster, link, growOld } = await aging();
      const before = link.require();
      cluster.manager = stack.use(await testManager({ guard: anything }));
      await growOld();
      await expect.poll(() => link.current !== undefined && link.current !== before).toBe(true);
    });
  });

  // The trap: after a change of network a connection looks alive for minutes, to those with heart-beats for seconds.
  test("is found at once when the way may have changed, and what is well is left alone", async () => {
    const { cluster, link } = await linked();
    const server = stack.use(await tcpServer((socket) => void socket.pipe(socket)));
    const before = link.require();
    const stream = await before.session.open(
      { kind: "tcp", target: { address: "127.0.0.1", port: server.port } },
      never,
    );
    const openManager = cluster.openManager.bind(cluster);
    let opened = 0;
    cluster.openManager = async () => {
      opened += 1;
      return await openManager();
    };
    for (let news = 0; news < 20; news += 1) link.recheck();
    stream.write("one");
    expect(String((await once(stream, "data"))[0])).toBe("one");
    await systemClock.sleep(400, never);
    expect(opened).toBe(0);
    cluster.muteManager();
    const startMs = performance.now();
    link.recheck();
    stream.write("two");
    expect(String((await once(stream, "data"))[0])).toBe("two");
    expect(performance.now() - startMs).toBeLessThan(1500);
    expect([opened, link.current]).toEqual([1, before]);
  });

  // Containers that come and go are news of the network too.
  test("is found although it takes three seconds and the way may have changed four times in each", async () => {
    const clock = new FakeClock();
    const { cluster, link } = await linked(clock);
    const openManager = cluster.openManager.bind(cluster);
    cluster.openManager = async (signal = never) => {
      await clock.sleep(3000, signal);
      return await openManager();
    };
    const { ups } = link;
    cluster.cutManager();
    await expect.poll(() => link.current).toBeUndefined();
    for (let quarter = 0; quarter < 60 && link.ups === ups; quarter += 1) {
      link.recheck();
      await clock.advance(250);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(link.ups).toBe(ups + 1);
  });

  test("is not waited for any longer when the way may be there again", async () => {
    const { cluster, link } = await linked();
    const { openManager } = cluster;
    let waiting = 0;
    cluster.openManager = async (signal = never) => {
      waiting += 1;
      return await rejected(signal);
    };
    cluster.cutManager();
    await expect.poll(() => waiting).toBe(1);
    cluster.openManager = openManager.bind(cluster);
    const startMs = performance.now();
    link.recheck();
    await expect.poll(() => link.current !== undefined, { timeout: 5000 }).toBe(true);
    expect(performance.now() - startMs).toBeLessThan(3500);
  });
});
