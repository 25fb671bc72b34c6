// A laptop's streams into the cluster. Stories of the original: dials were made one after another, so a black hole held
// up everybody; a refusal left the dialer open and the program hanging; whoever reached the manager reached its node.
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import dnsPacket from "dns-packet";
import { describe, expect, test } from "vitest";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { parseManagerConfig } from "#manager/config.ts";
import { LogLines, TestLaptop, anything, namedServer, never, tcpServer, testManager, tick } from "./harness.ts";

async function readAll(stream: TunnelStream): Promise<string> {
  const chunks: Buffer[] = [];
  stream.on("data", (chunk) => chunks.push(chunk as Buffer));
  await once(stream, "end");
  return Buffer.concat(chunks).toString();
}
/** A listener on 127.0.0.9 whose process never accepts: when its short backlog is full, SYNs are dropped. */
async function blackHole(): Promise<Disposable & { port: number }> {
  const code = `
    const server = require("node:net").createServer();
    server.listen({ host: "127.0.0.9", port: 0, backlog: 1 }, () => {
      require("node:fs").writeSync(1, String(server.address().port));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child = spawn(process.execPath, ["-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  const [text] = (await once(child.stdout, "data")) as [Buffer];
  return { port: Number(text.toString()), [Symbol.dispose]: () => void child.kill("SIGKILL") };
}
const tcp = (address: string, port: number) => ({ kind: "tcp", target: { address, port } }) as const;
const udp = (address: string, port: number) => ({ kind: "udp", target: { address, port } }) as const;

describe("a laptop's connection", () => {
  test("reaches its target and keeps half-close", async () => {
    await using manager = await testManager({ guard: anything });
    await using server = await namedServer("pod");
    await using laptop = await TestLaptop.connect(manager);
    const stream = await laptop.session.open(tcp("127.0.0.1", server.port), never);
    stream.end("hello");
    expect(await readAll(stream)).toBe("pod:hello");
  });

  test("is refused when the target refuses", async () => {
    await using manager = await testManager({ guard: anything });
    const server = await namedServer("gone");
    await server[Symbol.asyncDispose]();
    await using laptop = await TestLaptop.connect(manager);
    await expect(laptop.session.open(tcp("127.0.0.1", server.port), never)).rejects.toMatchObject({ code: "refused" });
  });

  test("is unreachable where no route leads", async () => {
    await using manager = await testManager({ guard: anything });
    await using laptop = await TestLaptop.connect(manager);
    // An address family or range without a route; the kernel answers at once.
    await expect(laptop.session.open(tcp("255.255.255.255", 80), never)).rejects.toMatchObject({
      code: expect.stringMatching(/^(unreachable|denied)$/),
    });
  });

  test("tells a reset of the target from its end", async () => {
    await using manager = await testManager({ guard: anything });
    await using server = await tcpServer((socket) => {
      socket.once("data", () => socket.resetAndDestroy());
    });
    await using laptop = await TestLaptop.connect(manager);
    const stream = await laptop.session.open(tcp("127.0.0.1", server.port), never);
    stream.write("x");
    stream.resume();
    const [error] = (await once(stream, "error")) as [Error];
    expect(error).toMatchObject({ code: "peer_reset" });
  });

  test("does not wait for others that wait for a black hole, however many they are", async () => {
    await using manager = await testManager({ guard: anything });
    using hole = await blackHole();
    await using server = await namedServer("pod");
    await using laptop = await TestLaptop.connect(manager);
    const giveUp = new AbortController();
    const outcomes = Array.from({ length: 1100 }, () =>
      laptop.session.open(tcp("127.0.0.9", hole.port), giveUp.signal).then(
        () => "open",
        (error: { code?: string }) => error.code ?? "given up",
      ),
    );
    const stream = await laptop.session.open(tcp("127.0.0.1", server.port), never);
    stream.end("x");
    expect(await readAll(stream)).toBe("pod:x");
    giveUp.abort(new Error("over"));
    const counts = Map.groupBy(await Promise.all(outcomes), (outcome) => outcome);
    expect(counts.get("busy")!.length).toBeGreaterThan(50);
    expect(counts.get("given up")!.length).toBeGreaterThan(1000);
    // Those who gave up have left room for others.
    const again = new AbortController();
    const late = laptop.session.open(tcp("127.0.0.9", hole.port), again.signal).catch((error: unknown) => error);
    await tick();
    again.abort(new Error("over"));
    expect(await late).toMatchObject({ message: "over" });
  });

  test("is asked for an echo from the manager's pod, within the guard, or told that the pod may not", async () => {
    const echo = (address: string) => ({ kind: "echo", target: { address, port: 0 } }) as const;
    await using strict = await testManager();
    await using denied = await TestLaptop.connect(strict);
    for (const address of ["127.0.0.1", "::1", "169.254.169.254", "224.0.0.1", "no address"]) {
      await expect(denied.session.open(echo(address), never)).rejects.toMatchObject({ code: "denied" });
    }
    await using manager = await testManager({ guard: anything });
    await using laptop = await TestLaptop.connect(manager);
    for (const address of ["127.0.0.1", "::1"]) {
      // whether this process may send echo requests is the machine's affair
      const outcome = await laptop.session.open(echo(address), never).catch((error: unknown) => error);
      if (outcome instanceof Error) {
        expect(outcome).toMatchObject({
          code: "denied",
          message: expect.stringContaining("may not send echo requests") as string,
        });
        continue;
      }
      const stream = outcome as TunnelStream;
      const answered = new Promise<string>((resolve) => {
        stream.onDatagram((datagram) => resolve(Buffer.from(datagram).toString()));
      });
      stream.sendDatagram(Buffer.from("!")); // shorter than a sequence number: nothing is sent
      stream.sendDatagram(Buffer.from("01echo"));
      expect(await answered).toBe("01echo");
      stream.destroy();
    }
  });

  test("by UDP goes both ways and ends when the target refuses", async () => {
    await using manager = await testManager({ guard: anything });
    const echo = createSocket("udp4");
    echo.on("message", (datagram, from) => echo.send(`echo:${datagram.toString()}`, from.port, from.address));
    echo.bind(0, "127.0.0.1");
    await once(echo, "listening");
    await using laptop = await TestLaptop.connect(manager);
    const { port } = echo.address();
    const stream = await laptop.session.open(udp("127.0.0.1", port), never);
    const answer = Promise.withResolvers<string>();
    stream.onDatagram((datagram) => answer.resolve(Buffer.from(datagram).toString()));
    stream.sendDatagram(Buffer.from("hi"));
    expect(await answer.promise).toBe("echo:hi");
    echo.close();
    await once(echo, "close");
    const failed = once(stream, "error");
    while (!stream.destroyed) {
      stream.sendDatagram(Buffer.from("anybody?"));
      await tick();
    }
    expect((await failed)[0]).toMatchObject({ code: "refused" });
  });
});

describe("a name", () => {
  test("is asked of the resolver of the manager's pod", async () => {
    const nameserver = createSocket("udp4");
    nameserver.on("message", (question, from) => {
      const answer = Buffer.from(question);
      answer.writeUInt16BE(0x8183, 2); // NXDOMAIN
      nameserver.send(answer, from.port, from.address);
    });
    nameserver.bind(0, "127.0.0.1");
    await once(nameserver, "listening");
    await using manager = await testManager({ dnsPort: nameserver.address().port });
    await using laptop = await TestLaptop.connect(manager);
    const question = dnsPacket.encode({ type: "query", id: 77, questions: [{ type: "A", name: "nope.shop" }] });
    const { message } = await laptop.rpc.call("dns.exchange", { message: question.toString("base64") }, never);
    const answer = dnsPacket.decode(Buffer.from(message, "base64"));
    expect(answer).toMatchObject({ id: 77, rcode: "NXDOMAIN" });
    nameserver.close();
  });
});

describe("the manager", () => {
  test("tells what the laptop needs to know of the cluster", async () => {
    await using manager = await testManager({ config: { apiServiceHost: "10.96.0.1", podIps: ["10.1.2.3"] } });
    await using laptop = await TestLaptop.connect(manager);
    await expect(
      laptop.rpc.call("arrive", { client: "x", installId: "x", version: "x", namespace: "x" }, never),
    ).rejects.toMatchObject({ code: "protocol" });
    // What arrive answered is checked through the session that it made.
    expect(laptop.sessionId).not.toBe("");
    expect(manager.fingerprint).toMatch(/^[0-9a-f]{64}$/);
  });

  test("departs a session: its link may stay but does nothing more", async () => {
    await using manager = await testManager({ guard: anything });
    await using server = await namedServer("pod");
    await using laptop = await TestLaptop.connect(manager);
    await laptop.intercept("hello", 8080);
    await laptop.rpc.call("depart", {}, never);
    expect(manager.registry.list()).toEqual([]);
    await expect(laptop.intercept("hello", 8080)).rejects.toMatchObject({ code: "link_lost" });
    await expect(laptop.session.open(tcp("127.0.0.1", server.port), never)).rejects.toMatchObject({ code: "denied" });
  });

  test("refuses and logs dials to itself, to loopback, to metadata and to its node", async () => {
    const log = new LogLines();
    await using manager = await testManager({
      log: log.logger,
      config: { podIps: ["10.1.2.3", "fd00:1::3"], nodeIps: ["192.168.7.7"] },
    });
    await using laptop = await TestLaptop.connect(manager);
    const refused = [
      "127.0.0.1",
      "::1",
      "::ffff:127.0.0.1",
      "10.1.2.3",
      "fd00:1::3",
      "169.254.169.254",
      "fd00:ec2::254",
      "::ffff:a9fe:a9fe",
      "192.168.7.7",
      "0.0.0.0",
      "::",
      "224.0.0.1",
      "ff02::1",
      "fe80::1",
    ];
    for (const address of refused) {
      await expect(laptop.session.open(tcp(address, 80), never)).rejects.toMatchObject({ code: "denied" });
      await expect(laptop.session.open(udp(address, 80), never)).rejects.toMatchObject({ code: "denied" });
    }
    expect(log.with("dial refused").length).toBeGreaterThan(0);
  });

  test("ends in order: laptops and agents are told", async () => {
    const manager = await testManager();
    await using laptop = await TestLaptop.connect(manager);
    await manager[Symbol.asyncDispose]();
    expect(await laptop.session.closed).toBeUndefined();
  });

  test("answers health, and nothing else on that port", async () => {
    await using manager = await testManager();
    const at = (path: string) => fetch(`http://127.0.0.1:${manager.healthPort}${path}`);
    expect((await at("/healthz")).status).toBe(200);
    expect((await at("/readyz")).status).toBe(200);
    expect((await at("/")).status).toBe(404);
  });

  test("takes its configuration from the environment and names what is wrong in it", () => {
    const config = parseManagerConfig({
      TELEPRESENCE_POD_NAME: "traffic-manager-1",
      TELEPRESENCE_POD_IPS: "10.0.0.1,fd00::1",
      TELEPRESENCE_NODE_IPS: "192.168.0.1",
      TELEPRESENCE_DENY_RANGES: "10.9.0.0/16 fd09::/16",
      TELEPRESENCE_ALLOW_NODES: "true",
    });
    expect(config).toMatchObject({
      podName: "traffic-manager-1",
      podIps: ["10.0.0.1", "fd00::1"],
      denyRanges: ["10.9.0.0/16", "fd09::/16"],
      allowNodes: true,
      ports: { laptop: 8081, agent: 8443, health: 8080, direct: 8444 },
    });
    expect(() => parseManagerConfig({ TELEPRESENCE_DENY_RANGES: "ten" })).toThrow('"ten"');
    expect(() => parseManagerConfig({ TELEPRESENCE_ALLOW_NODES: "yes" })).toThrow("expected true or false");
    expect(() => parseManagerConfig({ TELEPRESENCE_LOG_LEVEL: "loud" })).toThrow("expected one of");
  });
});
