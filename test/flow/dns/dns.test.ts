// The whole DNS server over loopback sockets, between a program's resolver and a host's nameservers.
// Traps: 4 (bytes of other people's answers changed; slow answers turned into NXDOMAIN), 7 (concurrent requests lost),
// 9 (the host's DNS broken while the cluster is away).
import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import dnsPacket from "dns-packet";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { systemClock, type Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { DnsFrames, frameMessage } from "#daemon/dns/tcp-frames.ts";
import { startDns, type Dns } from "#daemon/dns/start.ts";
import { checkName, type DnsConfig } from "#daemon/dns/names.ts";
import { askTcp, askUdp, decode, loopback, query } from "./client.ts";

const config: DnsConfig = { clusterDomain: "cluster.local", namespace: "default", namespaces: ["default", "dev"] };
const open: { close(): unknown }[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close();
});

type Reply = (query: Buffer) => Buffer | undefined;
interface Nameserver {
  readonly address: string;
  readonly port: number;
  readonly asked: { readonly bytes: Buffer; readonly fromPort: number }[];
}

/** A nameserver of the host's, UDP and TCP on one port; where the other protocol's is taken, another one is. */
async function nameserver(reply: Reply, tcpReply: Reply = reply): Promise<Nameserver> {
  for (;;) {
    try {
      return await nameserverOnAnyPort(reply, tcpReply);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    }
  }
}
async function nameserverOnAnyPort(reply: Reply, tcpReply: Reply): Promise<Nameserver> {
  const asked: Nameserver["asked"] = [];
  const udp: Socket = createSocket("udp4");
  udp.on("message", (bytes, from) => {
    asked.push({ bytes, fromPort: from.port });
    const answer = reply(bytes);
    if (answer !== undefined) udp.send(answer, from.port, from.address);
  });
  const tcp: Server = createServer((socket) => {
    const frames = new DnsFrames();
    socket.on("error", () => undefined);
    socket.on("data", (bytes: Buffer) => {
      for (const frame of frames.push(bytes)) {
        asked.push({ bytes: Buffer.from(frame), fromPort: socket.remotePort ?? 0 });
        const answer = tcpReply(Buffer.from(frame));
        if (answer !== undefined) socket.write(frameMessage(answer));
      }
    });
  });
  tcp.listen(0, loopback);
  await once(tcp, "listening");
  const { port } = tcp.address() as AddressInfo;
  open.push(udp, tcp);
  udp.bind(port, loopback);
  await once(udp, "listening");
  return { address: loopback, port, asked };
}

const respond = (bytes: Buffer, data: string | undefined, rcode = 0): Buffer => {
  const { id, questions } = dnsPacket.decode(bytes);
  const name = questions?.[0]?.name ?? "";
  return dnsPacket.encode({
    type: "response",
    id: id ?? 0,
    flags: dnsPacket.RECURSION_DESIRED | dnsPacket.RECURSION_AVAILABLE | rcode,
    questions: questions ?? [],
    answers: data === undefined ? [] : [{ type: "A", name, data, ttl: 300 }],
  });
};
const nxDomain: Reply = (bytes) => respond(bytes, undefined, 3);

/** A cluster that knows hello.default, and one with a long answer. */
async function clusterExchange(message: Uint8Array): Promise<Uint8Array> {
  const bytes = Buffer.from(message);
  const asked = dnsPacket.decode(bytes).questions?.[0];
  await Promise.resolve();
  if (asked?.name === "many.default.svc.cluster.local") {
    return dnsPacket.encode({
      type: "response",
      id: bytes.readUInt16BE(0),
      questions: [asked],
      answers: Array.from({ length: 100 }, (_, index) => ({
        type: "A",
        name: asked.name,
        data: `10.0.1.${index}`,
        ttl: 5,
      })),
    });
  }
  if (asked?.name !== "hello.default.svc.cluster.local") return respond(bytes, undefined, 3);
  return respond(bytes, asked.type === "A" ? "10.96.0.10" : undefined);
}

async function start(upstreams: readonly Nameserver[], options: { clock?: Clock; away?: boolean } = {}): Promise<Dns> {
  const dns = await startDns({
    listen: [{ address: loopback, port: 0 }],
    upstreams,
    config,
    exchange: options.away === true ? () => Promise.reject(new AppError("link_lost", "away")) : clusterExchange,
    clock: options.clock ?? systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
  });
  open.push(dns);
  return dns;
}

describe("a name that is not ours", () => {
  test("goes to the host's nameserver and back byte for byte, from an exempted port", async () => {
    const odd = (bytes: Buffer): Buffer => {
      const reply = Buffer.concat([respond(bytes, "192.0.2.1"), Buffer.from("bytes that only they understand")]);
      reply[3] = (reply[3] ?? 0) | 0x60;
      return reply;
    };
    const upstream = await nameserver(odd);
    const dns = await start([upstream]);
    const message = Buffer.concat([query("WWW.Example.COM"), Buffer.from("trailing")]);
    expect(await askUdp(dns, message)).toEqual(odd(message));
    expect(upstream.asked[0]?.bytes.subarray(2)).toEqual(message.subarray(2));
    expect(dns.upstreamSourcePorts).toHaveLength(16);
    expect(dns.upstreamSourcePorts).toContain(upstream.asked[0]?.fromPort);
  });

  test("is asked over TCP when the client does, from the same ports, several on one connection", async () => {
    const upstream = await nameserver(
      () => undefined,
      (bytes) => respond(bytes, "192.0.2.2"),
    );
    const dns = await start([upstream]);
    const asked = Array.from({ length: 40 }, (_, index) => query(`host-${index}.example.com`, "A", index + 1));
    const replies = await askTcp(dns, asked);
    expect(replies.map((reply) => decode(reply).id).sort((left, right) => (left ?? 0) - (right ?? 0))).toEqual(
      asked.map((_, index) => index + 1),
    );
    for (const { fromPort } of upstream.asked) expect(dns.upstreamSourcePorts).toContain(fromPort);
  });

  test("is asked of the next nameserver when the first is silent, refuses or fails; SERVFAIL only when all do", async () => {
    const silent = await nameserver(() => undefined);
    const refusing = await nameserver((bytes) => respond(bytes, undefined, 5));
    const good = await nameserver((bytes) => respond(bytes, "192.0.2.3"));
    const clock = new FakeClock();
    const dns = await start([refusing, silent, good], { clock });
    const answer = askUdp(dns, query("example.com"));
    while (silent.asked.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(1500);
    expect(decode(await answer).answers).toMatchObject([{ data: "192.0.2.3" }]);

    dns.setUpstreams([refusing]);
    expect(decode(await askUdp(dns, query("example.com"))).rcode).toBe("REFUSED");
    dns.setUpstreams([silent]);
    const before = silent.asked.length;
    const failure = askUdp(dns, query("example.com"));
    while (silent.asked.length === before) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(9000);
    expect(decode(await failure)).toMatchObject({ rcode: "SERVFAIL", id: 4711 });
    dns.setUpstreams([]);
    expect(decode(await askUdp(dns, query("example.com"))).rcode).toBe("SERVFAIL");
  });

  test("waits for a slow nameserver", async () => {
    const held: (() => void)[] = [];
    const udp = createSocket("udp4");
    udp.on("message", (bytes, from) => held.push(() => udp.send(respond(bytes, "192.0.2.4"), from.port, from.address)));
    udp.bind(0, loopback);
    await once(udp, "listening");
    open.push(udp);
    const clock = new FakeClock();
    const dns = await start([{ address: loopback, port: udp.address().port, asked: [] }], { clock });
    const answer = askUdp(dns, query("slow.example.com"));
    while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(4900);
    held[0]!();
    expect(decode(await answer).answers).toMatchObject([{ data: "192.0.2.4" }]);
  });

  test("is answered while the cluster is away; ours fail at once", async () => {
    const upstream = await nameserver((bytes) => respond(bytes, "192.0.2.5"));
    const dns = await start([upstream], { away: true });
    expect(decode(await askUdp(dns, query("example.com"))).answers).toHaveLength(1);
    expect(decode(await askUdp(dns, query("hello.default"))).rcode).toBe("SERVFAIL");
  });

  test("takes an answer only from where it was asked, about what was asked", async () => {
    const forger = createSocket("udp4");
    forger.bind(0, loopback);
    await once(forger, "listening");
    open.push(forger);
    const upstream = await nameserver((bytes) => {
      const forged = respond(bytes, "203.0.113.1");
      const wrong = respond(query("other.example.com", "A", bytes.readUInt16BE(0)), "203.0.113.2");
      const to = upstream.asked.at(-1)!.fromPort;
      forger.send(forged, to, loopback);
      const liar = createSocket("udp4");
      liar.send(wrong, to, loopback, () => liar.close());
      return wrong;
    });
    const good = await nameserver((bytes) => respond(bytes, "192.0.2.6"));
    const clock = new FakeClock();
    const dns = await start([upstream, good], { clock });
    const answer = askUdp(dns, query("www.example.com"));
    while (upstream.asked.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(1500);
    expect(decode(await answer).answers).toMatchObject([{ data: "192.0.2.6" }]);
  });
});

describe("a name of ours", () => {
  test("is answered by the cluster under the name that was asked, in the case it was asked", async () => {
    const dns = await start([await nameserver(nxDomain)]);
    for (const name of [
      "hello",
      "HELLO.default",
      "hello.default.svc",
      "hello.default.svc.cluster.local",
      "hello.tel2-search",
    ]) {
      const reply = decode(await askUdp(dns, query(name)));
      expect(reply).toMatchObject({
        rcode: "NOERROR",
        questions: [{ name }],
        answers: [{ name, data: "10.96.0.10", ttl: expect.toSatisfy((ttl) => ttl === 4 || ttl === 3) as number }],
      });
    }
  });
  test("that has no such record is not taken for one that does not exist", async () => {
    const dns = await start([await nameserver(nxDomain)]);
    expect(decode(await askUdp(dns, query("hello.default", "AAAA")))).toMatchObject({
      rcode: "NOERROR",
      answers: [],
    });
    expect(decode(await askUdp(dns, query("nobody.default"))).rcode).toBe("NXDOMAIN");
  });
  test("is truncated over UDP and whole over TCP when it is long", async () => {
    const dns = await start([]);
    expect(decode(await askUdp(dns, query("many.default")))).toMatchObject({ flag_tc: true, answers: [] });
    const [whole] = await askTcp(dns, [query("many.default")]);
    expect(decode(whole!).answers).toHaveLength(100);
  });
  test("and the check name is answered here", async () => {
    const dns = await start([]);
    expect(decode(await askUdp(dns, query(checkName))).answers).toMatchObject([{ data: "127.0.0.42" }]);
  });
});

describe("a name that may be either's", () => {
  test("is the cluster's first, then the host's", async () => {
    const upstream = await nameserver((bytes) => respond(bytes, "192.168.1.9"));
    const dns = await start([upstream]);
    expect(decode(await askUdp(dns, query("hello"))).answers).toMatchObject([{ data: "10.96.0.10" }]);
    expect(upstream.asked).toEqual([]);
    expect(decode(await askUdp(dns, query("printer"))).answers).toMatchObject([{ data: "192.168.1.9" }]);
    expect(decode(await askUdp(dns, query("web.dev"))).answers).toMatchObject([{ data: "192.168.1.9" }]);
  });
  test("is missing without a time to keep that when neither knows it, and a failure when the cluster is away", async () => {
    const upstream = await nameserver(nxDomain);
    const reply = decode(await askUdp(await start([upstream]), query("nobody")));
    expect(reply).toMatchObject({ rcode: "NXDOMAIN", authorities: [] });
    const away = await start([upstream], { away: true });
    expect(decode(await askUdp(away, query("hello"))).rcode).toBe("SERVFAIL");
  });
});

// Trap 6: with a cluster on the same machine the cluster's resolver forwards what it does not know to the host's, which
// is us again.
test("a query of ours that the cluster sends back to us does not exist, at once", async () => {
  const seen: Buffer[] = [];
  const dns: Dns = await startDns({
    listen: [{ address: loopback, port: 0 }],
    upstreams: [],
    config: { ...config, includeSuffixes: [".corp"] },
    exchange: async (message) => {
      // As forwarders do: another id, without EDNS.
      const forwarded = Buffer.from(message.slice(0, -11));
      forwarded.writeUInt16BE(99, 0);
      forwarded.writeUInt16BE(0, 10);
      const reply = await askUdp(dns, forwarded);
      seen.push(reply);
      reply.writeUInt16BE(Buffer.from(message).readUInt16BE(0), 0);
      return reply;
    },
    clock: systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
  });
  open.push(dns);
  expect(decode(await askUdp(dns, query("git.corp"))).rcode).toBe("NXDOMAIN");
  expect(seen).toHaveLength(1);
});

// Story: a dnsmasq of this machine, named by dns.localIP, asked the nameserver of resolv.conf, and so us, who asked it.
test("a nameserver of this machine's that asks us in turn has its answer from whom it meant", async () => {
  const meant = await nameserver((bytes) => respond(bytes, "192.0.2.7"));
  const own = createSocket("udp4");
  open.push(own);
  let asked = 0;
  own.on("message", (bytes, from) => {
    asked += 1;
    void askUdp(dns, query("example.com", "A", 99)).then((answer) => {
      answer.writeUInt16BE(bytes.readUInt16BE(0), 0);
      own.send(answer, from.port, from.address);
    });
  });
  own.bind(0, loopback);
  await once(own, "listening");
  const dns = await start([]);
  dns.setUpstreams([{ address: loopback, port: own.address().port }], [meant]);
  expect(decode(await askUdp(dns, query("example.com")))).toMatchObject({ answers: [{ data: "192.0.2.7" }] });
  expect([asked, meant.asked.length]).toEqual([1, 1]);
  // and the next time anew
  expect(decode(await askUdp(dns, query("example.com")))).toMatchObject({ answers: [{ data: "192.0.2.7" }] });
  expect([asked, meant.asked.length]).toEqual([2, 2]);
});

test("a forwarded query that the hook turns back to us is not forwarded again", async () => {
  const upstream = await nameserver(() => undefined);
  const dns = await start([upstream]);
  dns.setUpstreams(dns.addresses);
  const before = dns.stats().queries;
  const socket = createSocket("udp4");
  open.push(socket);
  socket.send(query("example.com"), dns.addresses[0]!.port, loopback);
  await expect.poll(() => dns.stats().queries - before).toBe(1);
  expect(decode(await askUdp(dns, query("hello.default"))).rcode).toBe("NOERROR");
  expect(dns.stats().queries - before).toBe(2);
  const reply = await askTcp(dns, [query("example.com")]);
  expect(reply.map((bytes) => decode(bytes).rcode)).toEqual(["SERVFAIL"]);
  expect(dns.stats().queries - before).toBe(3);
});

/** Which of these no connection of this machine leaves from just now. */
async function firstFree(ports: readonly number[]): Promise<number> {
  for (const port of ports) {
    const probe = createServer().listen(port, loopback);
    const isFree = await Promise.race([
      once(probe, "listening").then(() => true),
      once(probe, "error").then(() => false),
    ]);
    await new Promise((resolve) => probe.close(resolve));
    if (isFree) return port;
  }
  throw new Error(`none of the TCP ports ${ports.join(", ")} is free`);
}

// A program's TCP connection that happened to leave from a number of our 16 UDP ports was reset.
test("a program's connection from a port that we forward from over UDP alone is answered", async () => {
  const dns = await start([await nameserver((bytes) => respond(bytes, "192.0.2.7"))]);
  const [reply] = await askTcp(dns, [query("example.com")], await firstFree(dns.upstreamSourcePorts));
  expect(decode(reply!).answers).toMatchObject([{ data: "192.0.2.7" }]);
});

test("a forwarded query over TCP that the hook turns back to us is not forwarded again", async () => {
  const dns = await start([]);
  dns.setUpstreams([{ address: loopback, port: dns.addresses[0]!.port }]);
  const [reply] = await askTcp(dns, [query("example.com")]);
  expect(decode(reply!).rcode).toBe("SERVFAIL");
  expect(dns.stats().forwarded).toBe(1);
});

test("1,000 look-ups at once, ours and others, all come back right", async () => {
  const upstream = await nameserver((bytes) => respond(bytes, "192.0.2.7"));
  const dns = await start([upstream]);
  const replies = await Promise.all(
    Array.from({ length: 1000 }, async (_, index) => {
      const ours = index % 2 === 0;
      const reply = decode(await askUdp(dns, query(ours ? "hello.default" : `host-${index}.example.com`, "A", index)));
      const expected = ours ? "10.96.0.10" : "192.0.2.7";
      return reply.id === index && reply.answers?.[0]?.type === "A" && reply.answers[0].data === expected;
    }),
  );
  expect(replies.filter(Boolean)).toHaveLength(1000);
});

test("noise is refused or dropped, and the server goes on", async () => {
  const dns = await start([await nameserver(() => undefined)]);
  const socket = createSocket("udp4");
  open.push(socket);
  let seed = 1;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return (seed >>> 8) % below;
  };
  const { port } = dns.addresses[0]!;
  for (let round = 0; round < 2000; round++) {
    const noise = Buffer.from(Array.from({ length: random(80) }, () => random(256)));
    socket.send(noise, port, loopback);
    if (round % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const stream = connect(port, loopback);
  stream.on("error", () => undefined);
  stream.end(Buffer.from([0, 12, 1, 2, 3, 4, 0, 1, 0, 0, 0, 0, 0, 0, 255, 255, 1]));
  stream.resume();
  await once(stream, "close");
  expect(decode(await askUdp(dns, query("hello.default"))).answers).toHaveLength(1);
});

test("addresses of both families get the same free port", async () => {
  const dns = await startDns({
    listen: [
      { address: loopback, port: 0 },
      { address: "::1", port: 0 },
    ],
    upstreams: [],
    config,
    exchange: clusterExchange,
    clock: systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
  });
  open.push(dns);
  expect(dns.addresses.map(({ address }) => address)).toEqual([loopback, "::1"]);
  expect(new Set(dns.addresses.map(({ port }) => port)).size).toBe(1);
  const socket = createSocket("udp6");
  open.push(socket);
  socket.send(query("hello"), dns.addresses[1]!.port, "::1");
  const [reply] = (await once(socket, "message")) as [Buffer];
  expect(decode(reply).answers).toMatchObject([{ data: "10.96.0.10" }]);
});

test("a port that somebody has is named in the error, and close() leaves nothing behind", async () => {
  const dns = await start([]);
  const { port } = dns.addresses[0]!;
  const again = startDns({
    listen: [{ address: loopback, port }],
    upstreams: [],
    config,
    exchange: clusterExchange,
    clock: systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
  });
  await expect(again).rejects.toThrow(`cannot listen for DNS queries on 127.0.0.1 port ${port}`);
  await dns.close();
  await dns.close();
});
