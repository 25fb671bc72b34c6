// 20,000 random inputs to each port of the agent and to the manager's: no crash, no hang, bounded memory, and everybody
// else is served meanwhile. Seeded; the seed is in the output when a run fails.
import { connect } from "node:net";
import type { Socket } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { openSession } from "#tunnel/session.ts";
import { encodeHello } from "#wire/hello-codec.ts";
import { heldBeyond, heldBytes } from "#test/held-memory.ts";
import { KeptCaller, httpServer } from "./http-ends.ts";
import { TestLaptop, ask, helloOf, namedServer, never, randomFrom, testAgent, testManager, tick } from "./harness.ts";

const inputs = randomInputs();
const parallel = 32;
const seed = Number(process.env["FUZZ_SEED"] ?? 1);

function inputOf(random: (below: number) => number): Buffer {
  const bytes = Buffer.from(Array.from({ length: random(200) }, () => random(256)));
  switch (random(5)) {
    case 0:
      return bytes;
    case 1:
      return Buffer.concat([Buffer.from("GET / HTTP/1.1\r\n"), bytes, Buffer.from("\r\n\r\n")]);
    case 2:
      // A right greeting, then noise where frames should be.
      return Buffer.concat([encodeHello(helloOf("laptop")), bytes]);
    case 3: {
      // A greeting with some bytes changed.
      const hello = Buffer.from(encodeHello(helloOf("laptop")));
      for (let count = random(4); count >= 0; count -= 1) hello[random(hello.length)] = random(256);
      return hello;
    }
    default:
      return Buffer.concat([Buffer.from([0x16, 3, 1]), bytes]);
  }
}

const httpPieces: readonly string[] = [
  "GET / HTTP/1.1\r\n",
  "PUT /a HTTP/1.1\r\n",
  "POST /b HTTP/1.1\r\n",
  "HEAD / HTTP/1.0\r\n",
  "PRI * HTTP/2.0\r\n",
  "Host: a\r\n",
  "Host: a\r\n\r\n",
  "\r\n",
  "\r\n",
  "\n",
  "\r",
  " folded\r\n",
  "Expect: 100-continue\r\n",
  "abc",
  "\0",
  "Content-Length: 3\r\n",
  "Content-Length: 5\r\n\r\n",
  "Transfer-Encoding: chunked\r\n\r\n",
  "Connection: close\r\n",
  "3\r\nabc\r\n",
  "0\r\n\r\n",
  "0\r\nT: x\r\n\r\n",
  "5;a=b\r\n",
  "Upgrade: echo\r\nConnection: Upgrade\r\n",
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
];
function httpInput(random: (below: number) => number): Buffer {
  const pieces = Array.from({ length: 1 + random(8) }, () => httpPieces[random(httpPieces.length)] ?? "");
  return Buffer.from(pieces.join(""), "latin1");
}

/** Sends one input and ends, or resets, or just leaves. */
function send(port: number, input: Buffer, way: number): Promise<void> {
  return new Promise((resolve) => {
    const socket: Socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
    socket.resume();
    socket.once("end", () => socket.end());
    socket.once("connect", () => {
      if (way === 0) socket.end(input);
      else if (way === 1) socket.write(input, () => socket.resetAndDestroy());
      else socket.write(input, () => socket.destroy());
    });
  });
}

async function fuzz(port: number, count: number, input = inputOf): Promise<void> {
  const random = randomFrom(seed);
  let left = count;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      await send(port, input(random), random(3));
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/** Before the first test: what one of them leaves counts for those after it, and collecting costs more than most of them. */
let before = 0;
beforeAll(() => {
  before = heldBytes();
});

async function growth(work: () => Promise<void>): Promise<number> {
  await work();
  return heldBeyond(before, boundBytes);
}

/** Only a hang takes so long: 20,000 connections take half a minute, and many times that on a machine in full use. */
const hangMs = 900_000;
const boundBytes = 50 * 1024 * 1024;

describe("random input", { timeout: hangMs }, () => {
  test("to the agent's introduction port", async () => {
    await using manager = await testManager();
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    expect(await growth(() => fuzz(agent.introductionPort, inputs))).toBeLessThan(boundBytes);
    await using laptop = await TestLaptop.connect(manager);
    await laptop.introduce(manager, agent);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
  });

  test("to the agent's taken-over port reaches the application as it is", async () => {
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    expect(await growth(() => fuzz(agent.agentPorts[0]!, inputs))).toBeLessThan(boundBytes);
    expect(await ask(agent.agentPorts[0]!, "x")).toBe("app:x");
    expect(agent.openConnections).toBe(0);
  });

  test("like HTTP to a port that is intercepted holds up nobody", async () => {
    await using manager = await testManager();
    await using app = await httpServer("app");
    await using process = await httpServer("laptop");
    await using laptop = await TestLaptop.connect(manager);
    laptop.serveWith(process.port);
    await using agent = await testAgent({ containerPort: app.port });
    await laptop.introduce(manager, agent);
    await laptop.intercept("hello", app.port);
    const port = agent.agentPorts[0]!;
    expect(await growth(() => fuzz(port, inputs, httpInput))).toBeLessThan(boundBytes);
    using caller = new KeptCaller(port);
    expect((await caller.ask()).body).toContain("laptop GET /");
    caller[Symbol.dispose]();
    while (agent.openConnections > 0 || laptop.session.streamCount > 1) await tick();
  });

  test("to the agent's health port", async () => {
    await using app = await namedServer("app");
    await using agent = await testAgent({ containerPort: app.port });
    expect(await growth(() => fuzz(agent.healthPort, inputs / 10))).toBeLessThan(boundBytes);
    expect((await fetch(`http://127.0.0.1:${agent.healthPort}/ready`)).status).toBe(200);
  });

  test("to the manager's ports", async () => {
    await using manager = await testManager();
    expect(await growth(() => fuzz(manager.laptopPort, inputs / 2))).toBeLessThan(boundBytes);
    expect(await growth(() => fuzz(manager.agentPort, inputs / 10))).toBeLessThan(boundBytes);
    await using laptop = await TestLaptop.connect(manager);
    expect((await laptop.intercept("hello", 80)).state).toBe("waiting");
  });

  test("as JSON-RPC of an arrived laptop ends at most its own session", async () => {
    await using manager = await testManager();
    await using other = await TestLaptop.connect(manager, "other@laptop");
    const random = randomFrom(seed);
    const methods = [
      "arrive",
      "intercept.create",
      "intercept.remove",
      "agents.trust",
      "dns.exchange",
      "nothing",
      "__proto__",
    ];
    for (let round = 0; round < 40; round += 1) {
      const transport = connect({ port: manager.laptopPort, host: "127.0.0.1", noDelay: true });
      transport.on("error", () => undefined);
      const options = { transport, hello: helloOf("laptop"), clock: systemClock, log: silentLogger, signal: never };
      const session = await openSession({ ...options, role: "opener" });
      const stream = await session.open({ kind: "rpc", api: "manager" }, never);
      stream.on("error", () => undefined);
      stream.resume();
      for (let index = 0; index < 50 && !stream.destroyed; index += 1) {
        const noise = JSON.stringify({
          a: [random(9), null, "x".repeat(random(50))],
          spec: random(2) === 0 ? null : {},
        });
        const message = {
          jsonrpc: "2.0",
          id: index,
          method: methods[random(methods.length)],
          params: JSON.parse(noise) as unknown,
        };
        const body = random(10) === 0 ? noise.slice(0, random(noise.length)) : JSON.stringify(message);
        const length = random(50) === 0 ? random(1_000_000_000) : Buffer.byteLength(body);
        stream.write(`Content-Length: ${length}\r\n\r\n${body}`);
        await new Promise((resolve) => setImmediate(resolve));
      }
      session.destroy();
    }
    expect((await other.rpc.call("intercept.list", {}, never)).intercepts).toEqual([]);
  }, 60_000);
});
