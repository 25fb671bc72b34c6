// A laptop's network that swallows everything, without FIN or RST: measured in the original, the service answered
// nothing for more than 55 s. Here no caller waits longer than six. And: how an agent ends.
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { decisionMs } from "#agent/inbound/open-stream.ts";
import type { Manager } from "#manager/manager.ts";
import { TestLaptop, ask, namedServer, never, testAgent, testManager, tick } from "./harness.ts";

/** A wire between laptop and manager that can be cut so that nobody is told. */
async function wireTo(port: number): Promise<AsyncDisposable & { port: number; swallow: () => void }> {
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("error", () => undefined);
      from.on("data", (bytes) => to.write(bytes));
      from.on("close", () => to.destroy());
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    swallow: () => {
      for (const socket of sockets) {
        socket.removeAllListeners("data");
        socket.pause();
      }
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe("a silent laptop", () => {
  test("delays each caller by one decision at most, and soon nobody", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using process = await namedServer("laptop");
    await using wire = await wireTo(manager.laptopPort);
    await using laptop = await TestLaptop.connect({ ...manager, laptopPort: wire.port } as Manager);
    laptop.serveWith(process.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("laptop:x");
    wire.swallow();
    const started = performance.now();
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(agent.agentPorts[0]!, "y")));
    expect(answers).toEqual(new Array(20).fill("app:y"));
    expect(performance.now() - started).toBeLessThan(2 * decisionMs); // each waited once
    await expect.poll(() => manager.registry.list()[0]?.state, { timeout: 10_000 }).toBe("suspended");
    const then = performance.now();
    expect(await ask(agent.agentPorts[0]!, "z")).toBe("app:z");
    expect(performance.now() - then).toBeLessThan(decisionMs);
  });
});

describe("an agent that is told to end", () => {
  test("serves until the application has ended and its connections have", async () => {
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    const caller = connect({ port: agent.agentPorts[0]!, host: "127.0.0.1", allowHalfOpen: true });
    caller.write("long ");
    while (app.connections.size < 1) await tick();
    let drained = false;
    const draining = agent.drain(never).then(() => (drained = true));
    expect(await ask(agent.agentPorts[0]!, "late")).toBe("app:late");
    app.server.close(); // listens no more; its connections go on
    expect(drained).toBe(false);
    caller.end("answer");
    const [bytes] = (await once(caller, "data")) as [Buffer];
    expect(bytes.toString()).toBe("app:long answer");
    await draining;
    expect(agent.openConnections).toBe(0);
  });

  test("ends when its time is over, whoever is still connected", async () => {
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    const caller = connect(agent.agentPorts[0]!, "127.0.0.1");
    caller.on("error", () => undefined);
    await once(caller, "connect");
    const limit = new AbortController();
    const draining = agent.drain(limit.signal);
    limit.abort(new Error("over"));
    await draining;
    expect(agent.openConnections).toBe(1);
    caller.destroy();
  });
});
