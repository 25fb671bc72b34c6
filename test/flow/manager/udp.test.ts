// Datagrams to an intercepted UDP port: to the laptop while there is an intercept, to the application otherwise.
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import type { Agent } from "#agent/agent.ts";
import { systemClock } from "#base/clock.ts";
import { TestLaptop, askAgent, testAgent, testManager } from "./harness.ts";

interface UdpEnd extends AsyncDisposable {
  readonly port: number;
  readonly socket: Socket;
}
async function udpEnd(address = "127.0.0.1"): Promise<UdpEnd> {
  const socket = createSocket("udp4");
  socket.bind(0, address);
  await once(socket, "listening");
  return {
    port: socket.address().port,
    socket,
    [Symbol.asyncDispose]: () => new Promise<void>((resolve) => socket.close(() => resolve())),
  };
}
async function application(name: string, address?: string): Promise<UdpEnd> {
  const end = await udpEnd(address);
  end.socket.on("message", (datagram, from) =>
    end.socket.send(`${name}:${datagram.toString()}`, from.port, from.address),
  );
  return end;
}
async function exchange(caller: UdpEnd, agent: Agent, text: string): Promise<string> {
  const answer = once(caller.socket, "message");
  caller.socket.send(text, agent.agentPorts[0]!, "127.0.0.1");
  return ((await answer) as [Buffer])[0].toString();
}

describe("a UDP port", () => {
  test("goes to the application, to the laptop, and back, from the same caller", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    laptop.onIncoming = (incoming) => {
      expect(incoming.request).toMatchObject({ kind: "inbound", protocol: "udp", podName: "hello-1" });
      const stream = incoming.accept();
      stream.onDatagram((datagram) => stream.sendDatagram(Buffer.from(`laptop:${Buffer.from(datagram).toString()}`)));
    };
    await laptop.introduce(manager, agent);
    await using caller = await udpEnd();
    expect(await exchange(caller, agent, "1")).toBe("app:1");
    const { id } = await laptop.intercept("hello", app.port, "udp");
    expect(await exchange(caller, agent, "2")).toBe("laptop:2");
    expect(await exchange(caller, agent, "3")).toBe("laptop:3");
    expect(laptop.arrived).toBe(1);
    await laptop.remove(id);
    expect(await exchange(caller, agent, "4")).toBe("app:4");
    // What `why` tells: one entry for each caller and each way its datagrams went.
    const { decisions } = await askAgent(agent, (rpc) => rpc.call("why", { limit: 9 }, new AbortController().signal));
    expect(decisions.map(({ isUdp, source, answeredBy }) => [isUdp, source, answeredBy])).toEqual(
      ["application", "laptop", "application"].map((who) => [true, "127.0.0.1", who]),
    );
    expect(decisions.map(({ durationMs }) => durationMs === undefined)).toEqual([false, false, true]);
  });

  test("goes to the application when the laptop refuses or is gone", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    const laptop = await TestLaptop.connect(manager);
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "udp");
    await using caller = await udpEnd();
    expect(await exchange(caller, agent, "1")).toBe("app:1");
    const told = await askAgent(agent, (rpc) => rpc.call("why", { limit: 9 }, new AbortController().signal));
    expect(told.decisions).toMatchObject([{ taken: 0, left: "nothing listens", answeredBy: "application" }]);
    laptop.transport.destroy();
    await using other = await udpEnd();
    expect(await exchange(other, agent, "2")).toBe("app:2");
  });

  // The stream is accepted before anybody knows whether a process has the port: only ICMP tells, after the first datagram.
  test("goes to the application when ICMP says that no process listens, without a lost datagram", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    laptop.onIncoming = (incoming) => {
      const stream = incoming.accept();
      stream.onDatagram(() => stream.destroy(Object.assign(new Error("ECONNREFUSED"), { code: "ECONNREFUSED" })));
    };
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "udp");
    await using caller = await udpEnd();
    await using other = await udpEnd();
    expect(await exchange(caller, agent, "1")).toBe("app:1");
    expect(await exchange(other, agent, "2")).toBe("app:2");
    expect(laptop.arrived).toBe(1);
    await laptop.until(([info]) => info?.refusedByLaptop === 1);
  });

  // A process that ends leaves its flows behind: their callers may ask again, and a new caller may get an old one's port.
  test("goes to the application when the process has ended that answered this caller before", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    let alive = true;
    laptop.onIncoming = (incoming) => {
      const stream = incoming.accept();
      stream.onDatagram((datagram) => {
        if (alive) stream.sendDatagram(Buffer.from(`laptop:${Buffer.from(datagram).toString()}`));
        else stream.destroy(Object.assign(new Error("ECONNREFUSED"), { code: "ECONNREFUSED" }));
      });
    };
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port, "udp");
    await using caller = await udpEnd();
    expect(await exchange(caller, agent, "1")).toBe("laptop:1");
    alive = false;
    expect(await exchange(caller, agent, "2")).toBe("app:2");
  });

  test("gets the answers that are on their way when an intercept begins or ends", async () => {
    await using manager = await testManager();
    await using app = await udpEnd();
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    const asked = Promise.withResolvers<(answer: string) => void>();
    laptop.onIncoming = (incoming) => {
      const stream = incoming.accept();
      stream.onDatagram(() => asked.resolve((answer) => stream.sendDatagram(Buffer.from(answer))));
    };
    await laptop.introduce(manager, agent);
    await using caller = await udpEnd();
    const toApp = once(app.socket, "message") as Promise<[Buffer, { port: number }]>;
    caller.socket.send("1", agent.agentPorts[0]!, "127.0.0.1");
    const [, from] = await toApp;
    const { id } = await laptop.intercept("hello", app.port, "udp");
    const ofApp = once(caller.socket, "message") as Promise<[Buffer]>;
    app.socket.send("app:1", from.port, "127.0.0.1");
    expect(String((await ofApp)[0])).toBe("app:1");
    caller.socket.send("2", agent.agentPorts[0]!, "127.0.0.1");
    const answerOfLaptop = await asked.promise;
    await laptop.remove(id);
    const ofLaptop = once(caller.socket, "message") as Promise<[Buffer]>;
    answerOfLaptop("laptop:2");
    expect(String((await ofLaptop)[0])).toBe("laptop:2");
  });

  test("is copied for wiretaps, whoever answers, and what they answer is thrown away", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    const got: string[] = [];
    const opened = Promise.withResolvers<void>();
    laptop.onIncoming = (incoming) =>
      void opened.promise.then(() => {
        const stream = incoming.accept();
        stream.onDatagram((datagram) => {
          got.push(Buffer.from(datagram).toString());
          stream.sendDatagram(Buffer.from("thrown away"));
        });
      });
    await laptop.introduce(manager, agent);
    const { id } = await laptop.intercept("copies", app.port, "udp", { kind: "wiretap" });
    await using caller = await udpEnd();
    expect(await exchange(caller, agent, "1")).toBe("app:1");
    expect(await exchange(caller, agent, "2")).toBe("app:2");
    opened.resolve();
    await expect.poll(() => got).toEqual(["1", "2"]);
    for (let index = 0; index < 20; index += 1) expect(await exchange(caller, agent, `${index}`)).toBe(`app:${index}`);
    await laptop.until(([info]) => info?.copies?.copied === 22);
    expect(laptop.arrived).toBe(1);
    await laptop.remove(id);
    expect(await exchange(caller, agent, "last")).toBe("app:last");
    expect(got).toHaveLength(22);
  });

  test("keeps nothing for a wiretap that does not open, beyond its bound, and counts what it drops", async () => {
    await using manager = await testManager();
    await using app = await application("app");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp" });
    await using laptop = await TestLaptop.connect(manager);
    laptop.onIncoming = () => undefined;
    await laptop.introduce(manager, agent);
    await laptop.intercept("copies", app.port, "udp", { kind: "wiretap" });
    await using caller = await udpEnd();
    const long = "x".repeat(8000);
    for (let index = 0; index < 12; index += 1) expect(await exchange(caller, agent, long)).toBe(`app:${long}`);
    await laptop.until(([info]) => info?.copies?.cut === 12 - 8);
  });

  // The kernel tells a refusal once, to whatever reads or sends next: an even number of datagrams hid it, and two callers
  // at once turned the choice of an address twice.
  test("reaches an application that listens on loopback only, without a lost datagram, whoever comes at once", async () => {
    await using app = await application("loopback");
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp", podIps: ["127.0.0.2"] });
    const callers = await Promise.all(Array.from({ length: 4 }, () => udpEnd()));
    const got = callers.map((caller) => {
      const texts: string[] = [];
      caller.socket.on("message", (text) => texts.push(text.toString()));
      for (const text of ["1", "2"]) caller.socket.send(text, agent.agentPorts[0]!, "127.0.0.1");
      return texts;
    });
    await expect.poll(() => got).toEqual(callers.map(() => ["loopback:1", "loopback:2"]));
    await Promise.all(callers.map((caller) => caller[Symbol.asyncDispose]()));
  });

  test("keeps no flow that the application refuses, wherever it is asked, and asks anew", async () => {
    const gone = await application("gone");
    const { port } = gone;
    await gone[Symbol.asyncDispose]();
    await using agent = await testAgent({ containerPort: port, protocol: "udp", podIps: ["127.0.0.2"] });
    await using caller = await udpEnd();
    const why = async (): Promise<unknown> =>
      (await askAgent(agent, (rpc) => rpc.call("why", { limit: 9 }, new AbortController().signal))).decisions;
    caller.socket.send("1", agent.agentPorts[0]!, "127.0.0.1");
    await expect
      .poll(why)
      .toMatchObject([{ isUdp: true, failure: `the application does not listen on UDP port ${port}` }]);
    const app = createSocket("udp4");
    app
      .on("message", (text, from) => app.send(`back:${text.toString()}`, from.port, from.address))
      .bind(port, "127.0.0.2");
    await once(app, "listening");
    expect(await exchange(caller, agent, "2")).toBe("back:2");
    await new Promise<void>((resolve) => app.close(() => resolve()));
  });

  // An ordinary sidecar (older kubelets) is told to end together with the application, and ended at once where no port
  // was of TCP: the datagrams of the application's own end were lost.
  test("is served by an agent that is told to end until the application has closed it", async () => {
    const app = await application("app");
    const looked = Promise.withResolvers<void>(); // it waits, so it has found that it is still needed
    const sleep: typeof systemClock.sleep = (ms, signal) => {
      looked.resolve();
      return systemClock.sleep(ms, signal);
    };
    const clock = { ...systemClock, sleep };
    await using agent = await testAgent({ containerPort: app.port, protocol: "udp", clock });
    await using caller = await udpEnd();
    let drained = false;
    const draining = agent.drain(new AbortController().signal).then(() => (drained = true));
    await Promise.race([looked.promise, draining]);
    expect(drained).toBe(false);
    expect(await exchange(caller, agent, "late")).toBe("app:late");
    await app[Symbol.asyncDispose]();
    await draining;
  });
});
