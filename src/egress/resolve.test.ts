// Regressions of the original: rcodes changed on the way, CNAME data stripped, a hard-coded 250 ms that became NXDOMAIN,
// concurrent look-ups dropped by the resolver. Here bytes pass through, slow answers are waited for, and 1,000 parallel
// look-ups all come back.
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import dnsPacket from "dns-packet";
import { afterEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { FakeClock } from "#base/clock.fake.ts";
import type { Clock } from "#base/clock.ts";
import { Resolver } from "./resolve.ts";

type Answer = (question: Buffer) => Buffer | undefined;
const open: (Socket | Server)[] = [];
afterEach(() => {
  for (const server of open.splice(0)) server.close();
});

async function nameserver(answer: Answer, at = 0): Promise<{ port: number; asked: Buffer[] }> {
  const asked: Buffer[] = [];
  const socket = createSocket("udp4");
  open.push(socket);
  socket.on("message", (question, from) => {
    asked.push(question);
    const reply = answer(question);
    if (reply !== undefined) socket.send(reply, from.port, from.address);
  });
  socket.bind(at, "127.0.0.1");
  await once(socket, "listening");
  return { port: socket.address().port, asked };
}
/** On one port for both; a port that is free for TCP may be somebody's for UDP, and then another one is taken. */
async function truncatingNameserver(answer: Answer): Promise<number> {
  for (;;) {
    const port = await tcpNameserver(answer);
    try {
      await nameserver((question) => {
        const truncated = Buffer.from(question);
        truncated.writeUInt16BE(0x8380, 2);
        return truncated;
      }, port);
      return port;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    }
  }
}
async function tcpNameserver(answer: Answer): Promise<number> {
  const server = createServer((socket) => {
    socket.once("data", (bytes: Buffer) => {
      const reply = answer(bytes.subarray(2)) ?? Buffer.alloc(0);
      const length = Buffer.alloc(2);
      length.writeUInt16BE(reply.length);
      // In two pieces: the length alone first.
      socket.write(length.subarray(0, 1));
      setImmediate(() => socket.end(Buffer.concat([length.subarray(1), reply])));
    });
  });
  open.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
const resolver = (port: number, clock: Clock = systemClock) =>
  new Resolver({ nameservers: ["127.0.0.1"], clock, port });
const never = new AbortController().signal;

const ask = (name: string, id = 0x1234): Buffer =>
  dnsPacket.encode({ type: "query", id, flags: 0x0100, questions: [{ type: "A", name }] });
const reply = (question: Buffer, address: string): Buffer => {
  const query = dnsPacket.decode(question);
  return dnsPacket.encode({
    type: "response",
    id: query.id ?? 0,
    flags: 0x8180,
    questions: query.questions ?? [],
    answers: [
      { type: "CNAME", name: query.questions![0]!.name, data: "real.example" },
      { type: "A", name: "real.example", data: address, ttl: 5 },
    ],
  });
};

describe("Resolver", () => {
  test("passes the answer through and puts the laptop's id back", async () => {
    const { port, asked } = await nameserver((question) => reply(question, "10.0.0.1"));
    const answer = await resolver(port).exchange(ask("hello.ns.svc.cluster.local"), never);
    const decoded = dnsPacket.decode(Buffer.from(answer));
    expect(decoded.id).toBe(0x1234);
    expect(decoded.answers).toHaveLength(2);
    expect(asked[0]!.subarray(2)).toEqual(ask("hello.ns.svc.cluster.local").subarray(2));
  });
  test("uses ids that differ from the laptop's", async () => {
    const { port, asked } = await nameserver((question) => reply(question, "10.0.0.1"));
    const one = resolver(port);
    for (let index = 0; index < 8; index += 1) await one.exchange(ask("a.b", 7), never);
    expect(new Set(asked.map((question) => question.readUInt16BE(0))).size).toBeGreaterThan(4);
  });
  test("keeps NXDOMAIN and SERVFAIL as they came", async () => {
    for (const rcode of [2, 3, 5]) {
      const { port } = await nameserver((question) => {
        const answer = Buffer.from(question);
        answer.writeUInt16BE(0x8180 | rcode, 2);
        return answer;
      });
      const answer = await resolver(port).exchange(ask("nope.example"), never);
      expect((answer[3] ?? 0) & 0x0f).toBe(rcode);
    }
  });
  test("asks again over TCP when the answer is truncated", async () => {
    const port = await truncatingNameserver((question) => reply(question, "10.0.0.9"));
    const answer = dnsPacket.decode(Buffer.from(await resolver(port).exchange(ask("big.example"), never)));
    expect(answer.answers).toHaveLength(2);
  });
  test("ignores answers to other questions and with other ids", async () => {
    const { port } = await nameserver((question) => {
      setImmediate(() => undefined);
      return reply(question, "10.0.0.1");
    });
    const forging = await nameserver((question) => {
      const other = Buffer.from(ask("other.example", question.readUInt16BE(0)));
      other[2] = 0x81;
      return other;
    });
    expect((await resolver(port).exchange(ask("a.b"), never)).length).toBeGreaterThan(12);
    const clock = new FakeClock();
    const failing = resolver(forging.port, clock)
      .exchange(ask("a.b"), never)
      .catch((error: unknown) => error);
    await untilPending(clock);
    await clock.advance(4100);
    expect(await failing).toMatchObject({ code: "timeout" });
    expect(clock.pending).toBe(0);
  });
  test("tries again when a datagram is lost, within the same four seconds", async () => {
    let count = 0;
    const { port } = await nameserver((question) => {
      count += 1;
      return count === 1 ? undefined : reply(question, "10.0.0.1");
    });
    const clock = new FakeClock();
    const exchange = resolver(port, clock).exchange(ask("a.b"), never);
    await untilPending(clock);
    await clock.advance(1400);
    expect((await exchange).length).toBeGreaterThan(12);
  });
  test("answers 1,000 parallel questions", async () => {
    const { port } = await nameserver((question) => reply(question, "10.0.0.1"));
    const one = resolver(port);
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, index) => one.exchange(ask(`name${index}.example`, index), never)),
    );
    for (const [index, answer] of answers.entries()) {
      expect(dnsPacket.decode(Buffer.from(answer)).questions![0]!.name).toBe(`name${index}.example`);
    }
  });
  test("refuses what is not a question", async () => {
    await expect(resolver(1).exchange(new Uint8Array(5), never)).rejects.toMatchObject({ code: "protocol" });
    const response = ask("a.b");
    response[2] = 0x81;
    await expect(resolver(1).exchange(response, never)).rejects.toMatchObject({ code: "protocol" });
  });
  test("says that no nameserver is known", async () => {
    const none = new Resolver({ nameservers: [], clock: systemClock });
    await expect(none.exchange(ask("a.b"), never)).rejects.toThrow("resolv.conf");
  });
});

async function untilPending(clock: FakeClock): Promise<void> {
  while (clock.pending < 2) await new Promise((resolve) => setImmediate(resolve));
}
