// Every type of record and every kind of answer, through the DNS server's sockets, from a resolver that answers as
// CoreDNS does. UDP and TCP, with EDNS and without.
import dnsPacket from "dns-packet";
import type { Answer, RecordType } from "dns-packet";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { startDns, type Dns } from "#daemon/dns/start.ts";
import { parsePrefix } from "#packet/address.ts";
import { askTcp, askUdp, decode, loopback, query } from "./client.ts";

const domain = "k8s.example.net";
const hello = `hello.default.svc.${domain}`;
const zeros = "0.".repeat(23);
const serviceReverse = "10.0.96.10.in-addr.arpa";
const podReverse = `9.${zeros}6.9.0.0.0.0.d.f.ip6.arpa`;
const long = "x".repeat(63);

/** What the cluster knows, by name and type; a name without the type has no data, any other name does not exist. */
const zone: Readonly<Record<string, Readonly<Partial<Record<RecordType, readonly Answer[]>>>>> = {
  [hello]: {
    A: [{ type: "A", name: hello, data: "10.96.0.10", ttl: 30 }],
    AAAA: [{ type: "AAAA", name: hello, data: "fd00:96::a", ttl: 30 }],
    TXT: [{ type: "TXT", name: hello, data: [Buffer.from("one"), Buffer.from('two; "three"')], ttl: 30 }],
    MX: [{ type: "MX", name: hello, data: { preference: 10, exchange: `mail.default.svc.${domain}` }, ttl: 30 }],
    CAA: [{ type: "CAA", name: hello, data: { flags: 0, tag: "issue", value: "ca.example" }, ttl: 30 }],
  },
  [`outside.default.svc.${domain}`]: {
    // ExternalName: the chain as the cluster's resolver gives it
    A: [
      { type: "CNAME", name: `outside.default.svc.${domain}`, data: "db.example.org", ttl: 30 },
      { type: "A", name: "db.example.org", data: "192.0.2.7", ttl: 60 },
    ],
    CNAME: [{ type: "CNAME", name: `outside.default.svc.${domain}`, data: "db.example.org", ttl: 30 }],
  },
  [`_http._tcp.hello.default.svc.${domain}`]: {
    SRV: [
      {
        type: "SRV",
        name: `_http._tcp.hello.default.svc.${domain}`,
        data: { priority: 0, weight: 100, port: 80, target: hello },
        ttl: 30,
      },
    ],
  },
  [serviceReverse]: { PTR: [{ type: "PTR", name: serviceReverse, data: hello, ttl: 30 }] },
  [podReverse]: { PTR: [{ type: "PTR", name: podReverse, data: `10-244-0-9.web.default.svc.${domain}`, ttl: 30 }] },
  [`web.default.svc.${domain}`]: {
    A: Array.from({ length: 40 }, (_, index) => ({
      type: "A" as const,
      name: `web.default.svc.${domain}`,
      data: `10.244.0.${index + 1}`,
      ttl: 5,
    })),
  },
  [`${long}.default.svc.${domain}`]: {
    A: [{ type: "A", name: `${long}.default.svc.${domain}`, data: "10.96.0.11", ttl: 5 }],
  },
};

const asked: string[] = [];
const broken = `broken.default.svc.${domain}`;

function clusterAnswer(message: Uint8Array): Promise<Uint8Array> {
  const bytes = Buffer.from(message);
  const { id = 0, questions = [] } = decode(bytes);
  const { name = "", type = "A" } = questions[0] ?? {};
  asked.push(`${name} ${type}`);
  const known = zone[name.toLowerCase()];
  const rcode = name === broken ? 2 : known === undefined ? 3 : 0;
  const answers = [...(known?.[type] ?? [])];
  return Promise.resolve(dnsPacket.encode({ type: "response", id, flags: 0x0180 | rcode, questions, answers }));
}

let dns: Dns;
beforeAll(async () => {
  dns = await startDns({
    listen: [{ address: loopback, port: 0 }],
    upstreams: [],
    config: {
      clusterDomain: domain,
      namespace: "default",
      namespaces: ["default"],
      subnets: ["10.96.0.0/16", "fd00:96::/32"].map((text) => parsePrefix(text)!),
      mappings: [
        { name: "db", aliasFor: "hello.default" },
        { name: "db.example.com", aliasFor: "db" },
        { name: "fixed", aliasFor: "192.0.2.9" },
        { name: "round", aliasFor: "about" },
        { name: "about", aliasFor: "round" },
        { name: "lost", aliasFor: "nobody.default" },
      ],
    },
    exchange: clusterAnswer,
    clock: systemClock,
    log: silentLogger,
    signal: new AbortController().signal,
  });
});
afterAll(() => dns.close());

const ttl = expect.toSatisfy((seconds) => (seconds as number) <= 4) as number;

describe("a question is answered as the cluster does", () => {
  test.each<[string, RecordType, string, readonly object[]]>([
    ["hello", "A", "NOERROR", [{ type: "A", name: "hello", data: "10.96.0.10", ttl }]],
    ["hello.default", "AAAA", "NOERROR", [{ type: "AAAA", data: "fd00:96::a", ttl }]],
    ["HELLO.Default.SVC", "A", "NOERROR", [{ name: "HELLO.Default.SVC", data: "10.96.0.10" }]],
    [hello, "TXT", "NOERROR", [{ type: "TXT", data: [Buffer.from("one"), Buffer.from('two; "three"')] }]],
    ["hello", "MX", "NOERROR", [{ type: "MX", data: { preference: 10, exchange: `mail.default.svc.${domain}` } }]],
    [hello, "CAA", "NOERROR", [{ type: "CAA", data: { tag: "issue", value: "ca.example" } }]],
    ["_http._tcp.hello.default", "SRV", "NOERROR", [{ type: "SRV", data: { port: 80, weight: 100, target: hello } }]],
    [serviceReverse, "PTR", "NOERROR", [{ type: "PTR", name: serviceReverse, data: hello }]],
    [podReverse, "PTR", "NOERROR", [{ type: "PTR", data: `10-244-0-9.web.default.svc.${domain}` }]],
    [
      "outside",
      "A",
      "NOERROR",
      [
        { type: "CNAME", name: "outside", data: "db.example.org" },
        { type: "A", name: "db.example.org", data: "192.0.2.7" },
      ],
    ],
    ["outside", "CNAME", "NOERROR", [{ type: "CNAME", data: "db.example.org" }]],
    [`${long}.default`, "A", "NOERROR", [{ data: "10.96.0.11" }]],
    // no such record, no such name, no answer: three different things
    ["hello", "SRV", "NOERROR", []],
    ["outside", "AAAA", "NOERROR", []],
    [serviceReverse, "A", "NOERROR", []],
    ["11.0.96.10.in-addr.arpa", "PTR", "NXDOMAIN", []],
    [`nobody.default.svc.${domain}`, "A", "NXDOMAIN", []],
    [`${long}.${long}.${long}.default`, "A", "NXDOMAIN", []],
    // none that a host could have: still nobody else's
    ["a b.default", "A", "NXDOMAIN", []],
    [broken, "A", "SERVFAIL", []],
    // what the user has settled
    [
      "db",
      "A",
      "NOERROR",
      [
        { type: "CNAME", name: "db", data: "hello.default" },
        { name: "hello.default", data: "10.96.0.10" },
      ],
    ],
    [
      "db.example.com",
      "AAAA",
      "NOERROR",
      [
        { type: "CNAME", name: "db.example.com", data: "db" },
        { type: "CNAME", name: "db", data: "hello.default" },
        { type: "AAAA", name: "hello.default", data: "fd00:96::a" },
      ],
    ],
    ["db", "CNAME", "NOERROR", [{ type: "CNAME", data: "hello.default" }]],
    ["fixed", "A", "NOERROR", [{ type: "A", name: "fixed", data: "192.0.2.9" }]],
    ["fixed", "AAAA", "NOERROR", []],
    ["round", "A", "SERVFAIL", []],
    ["lost", "A", "NXDOMAIN", [{ type: "CNAME", data: "nobody.default" }]],
  ])("%s %s: %s", async (name, type, rcode, answers) => {
    const overUdp = decode(await askUdp(dns, query(name, type, 1, 1232)));
    const [overTcp] = await askTcp(dns, [query(name, type, 2)]);
    for (const reply of [overUdp, decode(overTcp!)]) {
      expect(reply).toMatchObject({ rcode, flag_ra: true, flag_tc: false, questions: [{ name, type }] });
      expect(reply.answers).toMatchObject(answers);
    }
  });
});

// 40 addresses are 40 × 16 bytes and the question.
test.each([
  [undefined, true],
  [512, true],
  [600, true],
  [1232, false],
  [4096, false],
])("a program that takes %s bytes gets an answer that fits, and over TCP the whole", async (edns, cut) => {
  const bytes = await askUdp(dns, query("web", "A", 3, edns));
  const reply = decode(bytes);
  expect(bytes.length).toBeLessThanOrEqual(Math.max(512, edns ?? 0));
  expect(reply).toMatchObject({ rcode: "NOERROR", flag_tc: cut });
  expect(reply.answers).toHaveLength(cut ? 0 : 40);
  expect(reply.additionals?.map(({ type }) => type)).toEqual(edns === undefined ? [] : ["OPT"]);
  const [whole] = await askTcp(dns, [query("web", "A", 4, edns)]);
  expect(decode(whole!).answers).toHaveLength(40);
});

test("a question that many ask at once goes to the cluster once", async () => {
  dns.flush();
  asked.length = 0;
  const replies = await Promise.all(
    Array.from({ length: 50 }, (_, index) => askUdp(dns, query("hello.default", "A", index))),
  );
  expect(new Set(replies.map((reply) => decode(reply).answers?.length))).toEqual(new Set([1]));
  expect(asked).toEqual([`${hello} A`]);
});
