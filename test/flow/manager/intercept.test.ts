// Callers, agents, manager and laptop. Stories of the original: with several replicas only the recorded pod delivered;
// a registered intercept whose laptop was gone hung its callers for 55 s and more; transfers hung on half-close and
// with slow readers; a refused connection hung.
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { decisionMs } from "#agent/inbound/open-stream.ts";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";
import { roundsOf } from "#base/rounds.fake.ts";
import { TestLaptop, ask, namedServer, never, tcpServer, testAgent, testManager, tick } from "./harness.ts";

/** Of each direction; several times what may be held. */
const bulkBytes = roundsOf(40, 96) * 2 ** 20;
const attachCycles = Math.min(30, 4 * Number(process.env["ATTACH_CYCLES"] ?? 30));

describe("an intercept", () => {
  test("brings the connections of every replica to the laptop", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await using first = await testAgent({ number: 1, containerPort: app.port });
    await using second = await testAgent({ number: 2, containerPort: app.port });
    await using third = await testAgent({ number: 3, containerPort: app.port });
    const agents = [first, second, third];
    for (const [index, agent] of agents.entries()) await laptop.introduce(manager, agent, index + 1);
    expect(await ask(first.agentPorts[0]!, "before")).toBe("app:before");
    const info = await laptop.intercept("hello", app.port);
    expect(info.state).toBe("active");
    expect(info.pods.map((pod) => pod.name)).toEqual(["hello-1", "hello-2", "hello-3"]);
    const length = roundsOf(90, 300);
    const answers = await Promise.all(
      Array.from({ length }, (_, index) => ask(agents[index % 3]!.agentPorts[0]!, `${index}`)),
    );
    expect(answers).toEqual(Array.from({ length }, (_, index) => `laptop:${index}`));
    expect(laptop.arrived).toBe(length);
  });

  test("leaves to the application what the laptop's process refuses, and counts it", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    for (let index = 0; index < 5; index += 1) expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
    await laptop.until(([info]) => info?.refusedByLaptop === 5);
    expect(laptop.intercepts[0]!.state).toBe("active");
  });

  test("leaves everything to the application, losing nothing, when the laptop's link is cut", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    const laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("laptop:x");
    laptop.transport.destroy();
    const started = performance.now();
    const answers = await Promise.all(Array.from({ length: 50 }, () => ask(agent.agentPorts[0]!, "y")));
    expect(answers).toEqual(Array.from({ length: 50 }, () => "app:y"));
    expect(performance.now() - started).toBeLessThan(decisionMs); // nobody waited for the laptop's answer
    expect(manager.registry.list()[0]).toMatchObject({ state: "suspended" });
  });

  test("gives a connection to the application when the link is cut before its first byte", async () => {
    await using manager = await testManager();
    await using app = await tcpServer((socket) => {
      socket.write("app speaks first");
      socket.end();
    });
    const laptop = await TestLaptop.connect(manager);
    laptop.onIncoming = (incoming) => void incoming.accept();
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    const answer = ask(agent.agentPorts[0]!, "").catch(() => undefined); // its half-close was relayed: it may fail
    const silent = connect(agent.agentPorts[0]!, "127.0.0.1");
    while (laptop.arrived < 2) await tick();
    laptop.transport.destroy();
    const [text] = (await once(silent, "data")) as [Buffer];
    expect(text.toString()).toBe("app speaks first");
    silent.destroy();
    await answer;
  });

  test("resets a connection whose bytes were relayed when the link is cut", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    const laptop = await TestLaptop.connect(manager);
    laptop.onIncoming = (incoming) => {
      const stream = incoming.accept();
      stream.on("data", () => stream.write("half"));
    };
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    const caller = connect(agent.agentPorts[0]!, "127.0.0.1");
    caller.write("hello");
    await once(caller, "data");
    laptop.transport.destroy();
    const [error] = (await once(caller, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNRESET");
  });

  test("goes on for open connections after its removal, while new ones reach the application", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    const info = await laptop.intercept("hello", app.port);
    const caller = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1", allowHalfOpen: true });
    caller.write("old ");
    while (laptop.arrived < 1) await tick();
    while (process.connections.size < 1) await tick();
    await laptop.remove(info.id);
    expect(await ask(agent.agentPorts[0]!, "new")).toBe("app:new");
    caller.end("connection");
    const [answer] = (await once(caller, "data")) as [Buffer];
    expect(answer.toString()).toBe("laptop:old connection");
    expect(laptop.intercepts).toEqual([]);
  });

  // It counts answers, whatever time they take: 2 s, or many times that while others use the machine.
  test("loses no connection over many attaches and detaches under load", { timeout: 90_000 }, async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    const counts = { app: 0, laptop: 0 };
    let going = true;
    const caller = async (): Promise<void> => {
      while (going) {
        const answer = await ask(agent.agentPorts[0]!, "x");
        counts[answer.split(":")[0] as "app" | "laptop"] += 1;
      }
    };
    const callers = Array.from({ length: 8 }, caller);
    for (let cycle = 0; cycle < attachCycles; cycle += 1) {
      const { id } = await laptop.intercept("hello", app.port);
      const before = counts.laptop;
      while (counts.laptop < before + 5) await tick();
      await laptop.remove(id);
      const then = counts.app;
      while (counts.app < then + 5) await tick();
    }
    going = false;
    await Promise.all(callers);
    while (agent.openConnections > 0 || laptop.session.streamCount > 1) await tick(); // its API is the one that stays
    expect(counts.app).toBeGreaterThanOrEqual(5 * attachCycles);
    expect(counts.laptop).toBeGreaterThanOrEqual(5 * attachCycles);
  });

  test("keeps half-closes, whichever side ends first", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    // The caller ends first, then gets 10 MB.
    const big = Buffer.alloc(10 * 1024 * 1024, 7);
    await using answering = await tcpServer((socket) => {
      socket.resume();
      socket.once("end", () => socket.end(big));
    });
    laptop.serveWith(answering.port);
    const answer = await ask(agent.agentPorts[0]!, "request");
    expect(answer.length).toBe(big.length);
    // The process ends first, then gets 10 MB.
    const received = Promise.withResolvers<number>();
    await using ending = await tcpServer((socket) => {
      socket.end("bye");
      let bytes = 0;
      socket.on("data", (chunk) => (bytes += chunk.length));
      socket.once("end", () => received.resolve(bytes));
    });
    laptop.serveWith(ending.port);
    const caller = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1", allowHalfOpen: true });
    caller.resume();
    await once(caller, "end");
    caller.end(big);
    expect(await received.promise).toBe(big.length);
  });

  test("brakes a fast sender when the reader is slow", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    await using process = await tcpServer((socket) => socket.pause()); // reads nothing
    laptop.serveWith(process.port);
    const caller = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1" });
    await once(caller, "connect");
    const block = Buffer.alloc(64 * 1024, 1);
    let sent = 0;
    let idleTurns = 0;
    const total = 512 * 1024 * 1024;
    while (sent < total && idleTurns < 300) {
      if (caller.writableLength < 64 * 1024) {
        caller.write(block);
        sent += block.length;
        idleTurns = 0;
      } else idleTurns += 1;
      await new Promise((resolve) => setImmediate(resolve));
    }
    // Socket buffers and windows of four hops hold some megabytes, not the rest.
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    expect(process.connections.size).toBe(1);
    // Another connection is not held up by the one that is stuck.
    await using other = await namedServer("laptop");
    laptop.serveWith(other.port);
    expect(await ask(agent.agentPorts[0]!, "quick")).toBe("laptop:quick");
    caller.destroy();
  });

  // Trap 35: transfers hung, and buffers without a bound filled the memory. All four hops are in this one process.
  test("carries bulk each way at once between slow readers, in bounded memory", { timeout: 60_000 }, async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    const block = Buffer.alloc(256 * 1024, 1);
    const startBytes = heldBytes();
    let mostBytes = 0;
    /** Writes as much as there is room for, and reads a little in every third turn of the loop. */
    const exchange = async (socket: Socket): Promise<number> => {
      socket.pause();
      const write = async (): Promise<void> => {
        for (let sent = 0; sent < bulkBytes; sent += block.length)
          if (!socket.write(block)) await once(socket, "drain");
        socket.end();
      };
      const written = write();
      let received = 0;
      let lookAt = 1;
      while (!socket.readableEnded) {
        for (let turn = 0; turn < 3; turn += 1) await tick();
        received += (socket.read() as Buffer | null)?.length ?? 0;
        if (received < lookAt) continue;
        mostBytes = Math.max(mostBytes, heldBeyond(startBytes, bulkBytes));
        lookAt += 4 * 2 ** 20;
      }
      await written;
      return received;
    };
    const received = Promise.withResolvers<number>();
    await using answering = await tcpServer((socket) => void exchange(socket).then(received.resolve, received.reject));
    laptop.serveWith(answering.port);
    const caller = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1", allowHalfOpen: true });
    await once(caller, "connect");
    expect(await exchange(caller)).toBe(bulkBytes);
    expect(await received.promise).toBe(bulkBytes);
    expect(mostBytes).toBeGreaterThan(0);
    expect(mostBytes).toBeLessThan(bulkBytes); // half of what is on its way would be as much
  });

  // Trap 44: a list that was longer than one message could be was an error.
  test("is one of 600 of 20 laptops, and the list of them is whole", async () => {
    await using manager = await testManager();
    await using laptops = new AsyncDisposableStack();
    const filter = `request.headers["x-user"] == "${"x".repeat(1000)}"`;
    for (let number = 0; number < 20; number += 1) {
      const laptop = laptops.use(await TestLaptop.connect(manager, `ada${number}@laptop`));
      const ports = Array.from({ length: 30 }, (_, index) => number * 30 + index + 1);
      await Promise.all(ports.map((port) => laptop.intercept(`hello-${port}`, port, "tcp", { filter })));
      await laptop.until((own) => own.length === 30);
    }
    await using laptop = await TestLaptop.connect(manager, "bob@desk");
    const { intercepts } = await laptop.rpc.call("intercept.list", {}, never);
    expect(intercepts).toHaveLength(600);
  });

  test("leaves everything to the application when the manager goes, and comes back with a new manager", async () => {
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using agent = await testAgent({ containerPort: app.port });
    {
      await using manager = await testManager();
      await using laptop = await TestLaptop.connect(manager);
      laptop.serveWith(process.port);
      await laptop.introduce(manager, agent);
      await laptop.intercept("hello", app.port);
      expect(await ask(agent.agentPorts[0]!, "x")).toBe("laptop:x");
    }
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
    await using manager = await testManager();
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("laptop:x");
  });

  test("of one laptop excludes another's on the same port, and tells it who has it", async () => {
    await using manager = await testManager({ idleOwnerMs: 0 });
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager, "ada@laptop");
    await using other = await TestLaptop.connect(manager, "bob@desk");
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await other.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    await expect(other.intercept("mine", app.port)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining("ada@laptop"),
    });
    laptop.transport.destroy();
    await laptop.session.closed;
    while (manager.registry.list()[0]?.state !== "suspended") await tick();
    expect((await other.intercept("mine", app.port)).state).toBe("active");
  });

  test("waits for an agent, and for its port to be one the agent has", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    expect((await laptop.intercept("hello", app.port)).state).toBe("waiting");
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.until(([info]) => info?.state === "active");
    const wrong = await laptop.intercept("wrong", 1);
    expect(wrong).toMatchObject({ state: "error", message: expect.stringContaining("port 1/tcp is not taken over") });
    expect(laptop.intercepts.find((info) => info.spec.name === "hello")?.state).toBe("active");
  });

  test("tells the laptop of a lost agent and serves again when it is introduced anew", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using laptop = await TestLaptop.connect(manager);
    {
      await using agent = await testAgent({ containerPort: app.port });
      await laptop.introduce(manager, agent);
      expect((await laptop.intercept("hello", app.port)).state).toBe("active");
    }
    await laptop.until(([info]) => info?.state === "waiting");
    expect(laptop.lostAgents).toEqual(["uid-1"]);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.until(([info]) => info?.state === "active");
  });
});

describe("without an intercept", () => {
  test("a connection reaches the application on the pod's address, or on loopback if it listens only there", async () => {
    await using onPod = await namedServer("pod", "127.0.0.2");
    await using agent = await testAgent({ containerPort: onPod.port, podIps: ["127.0.0.2"] });
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("pod:x");
    await using onLoopback = await namedServer("loopback", "127.0.0.1");
    await using other = await testAgent({ containerPort: onLoopback.port, podIps: ["127.0.0.3"] });
    for (let index = 0; index < 3; index += 1) expect(await ask(other.agentPorts[0]!, "x")).toBe("loopback:x");
  });

  test("a caller is reset when the application listens nowhere", async () => {
    const gone = await namedServer("gone");
    await gone[Symbol.asyncDispose]();
    await using agent = await testAgent({ containerPort: gone.port });
    await expect(ask(agent.agentPorts[0]!, "x")).rejects.toMatchObject({ code: "ECONNRESET" });
  });
});
