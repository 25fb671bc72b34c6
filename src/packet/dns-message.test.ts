// Trap 4 (CNAME data stripped, rcodes confused) at the level of bytes. Another implementation (dns-packet) makes and
// reads the messages.
import dnsPacket from "dns-packet";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import {
  addressOf,
  buildQuery,
  dnsRcodes,
  dnsTypes,
  encodeReply,
  parseAnswer,
  parseQuery,
  readQuestion,
  type DnsAnswer,
} from "./dns-message.ts";

const full = "hello.default.svc.cluster.local";
const need = <T>(value: T | undefined): T => {
  if (value === undefined) throw new Error("expected a value");
  return value;
};
const query = (name: string, options: { edns?: number; id?: number } = {}): Buffer =>
  dnsPacket.encode({
    type: "query",
    id: options.id ?? 7,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type: "A", name }],
    additionals:
      options.edns === undefined
        ? []
        : [
            {
              type: "OPT",
              name: ".",
              udpPayloadSize: options.edns,
              extendedRcode: 0,
              ednsVersion: 0,
              flags: 0,
              flag_do: false,
              options: [],
            },
          ],
  });
const answer = (answers: dnsPacket.Answer[], rcode = 0): DnsAnswer =>
  need(
    parseAnswer(
      dnsPacket.encode({ type: "response", id: 7, flags: rcode, questions: [{ type: "A", name: full }], answers }),
      { id: 7, name: full, type: dnsTypes.a },
    ),
  );

describe("parseQuery()", () => {
  test("reads name, type and EDNS size, in lower case but with the question's own bytes", () => {
    const message = query("HeLLo.Default", { edns: 1400 });
    const parsed = need(parseQuery(message));
    expect(parsed).toMatchObject({
      id: 7,
      name: "hello.default",
      type: 1,
      class: 1,
      opcode: 0,
      udpBytes: 1400,
      hasEdns: true,
    });
    expect(Buffer.from(parsed.question).includes("HeLLo")).toBe(true);
    expect(need(parseQuery(query("a"))).udpBytes).toBe(512);
    expect(need(parseQuery(query("a", { edns: 65_000 }))).udpBytes).toBe(4096);
  });
  test("spells bytes that no host's name has, and gives nothing for what is not one question", () => {
    expect(need(parseQuery(query("A b.com"))).name).toBe("a\\032b.com");
    const dotted = query("a-b.com");
    dotted[14] = 0x2e; // a dot inside the label
    const { name } = need(parseQuery(dotted));
    expect(name).toBe("a\\046b.com");
    expect(Buffer.from(buildQuery(7, name, 1)).includes(dotted.subarray(12, 21))).toBe(true);
    expect(need(parseQuery(query("."))).name).toBe("");
    expect(parseQuery(dnsPacket.encode({ type: "query", id: 1, questions: [] }))).toBeUndefined();
    expect(
      parseQuery(dnsPacket.encode({ type: "response", id: 1, questions: [{ type: "A", name: "a" }] })),
    ).toBeUndefined();
    expect(parseQuery(query("abc").subarray(0, 20))).toBeUndefined();
  });
});

test("buildQuery() is what another implementation reads", () => {
  const decoded = dnsPacket.decode(Buffer.from(buildQuery(99, full, dnsTypes.srv)));
  expect(decoded).toMatchObject({ id: 99, type: "query", questions: [{ name: full, type: "SRV" }] });
  expect(decoded.flag_rd).toBe(true);
  expect(decoded.additionals).toMatchObject([{ type: "OPT", udpPayloadSize: 1232 }]);
});

describe("an answer on its way back", () => {
  test("keeps a CNAME chain whole and gives the first owner the name that was asked for", () => {
    const chain = answer([
      { type: "CNAME", name: full, data: "db.Example.org", ttl: 30 },
      { type: "A", name: "db.example.org", data: "192.0.2.1", ttl: 30 },
    ]);
    const reply = dnsPacket.decode(Buffer.from(encodeReply(need(parseQuery(query("HELLO"))), chain, 512)));
    expect(reply).toMatchObject({
      id: 7,
      rcode: "NOERROR",
      flag_ra: true,
      flag_rd: true,
      questions: [{ name: "HELLO" }],
    });
    expect(reply.answers).toMatchObject([
      { type: "CNAME", name: "HELLO", data: "db.example.org" },
      { type: "A", name: "db.example.org", data: "192.0.2.1" },
    ]);
  });
  test("expands compressed names inside every type that may have them", () => {
    // question at 12; the answers point into it (0xc00c the whole name, 0xc012 `default.svc.cluster.local`)
    const head = dnsPacket.encode({ type: "response", id: 7, questions: [{ type: "A", name: full }] });
    head[7] = 3;
    const record = (type: number, data: number[]): number[] => [
      0xc0,
      12,
      0,
      type,
      0,
      1,
      0,
      0,
      0,
      9,
      0,
      data.length,
      ...data,
    ];
    const message = Buffer.concat([
      head,
      Buffer.from([
        ...record(dnsTypes.srv, [0, 1, 0, 2, 0, 80, 3, 0x77, 0x65, 0x62, 0xc0, 18]),
        ...record(dnsTypes.mx, [0, 5, 0xc0, 18]),
        ...record(dnsTypes.ptr, [0xc0, 12]),
      ]),
    ]);
    const parsed = need(parseAnswer(message, { id: 7, name: full, type: 1 }));
    const reply = dnsPacket.decode(Buffer.from(encodeReply(need(parseQuery(query("hello"))), parsed, 512)));
    expect(reply.answers).toMatchObject([
      { type: "SRV", name: "hello", data: { port: 80, target: "web.default.svc.cluster.local" } },
      { type: "MX", data: { preference: 5, exchange: "default.svc.cluster.local" } },
      { type: "PTR", data: full },
    ]);
  });
  test("says how long it may be kept that there is nothing, by the zone's SOA", () => {
    const soa = (ttl: number, minimum: number): dnsPacket.Answer => ({
      type: "SOA",
      name: "cluster.local",
      ttl,
      data: { mname: "ns.dns.cluster.local", rname: "hostmaster.cluster.local", minimum },
    });
    const of = (authorities: dnsPacket.Answer[]): DnsAnswer => {
      const questions: dnsPacket.Question[] = [{ type: "A", name: full }];
      const message = dnsPacket.encode({ type: "response", id: 7, flags: 3, questions, authorities });
      return need(parseAnswer(message, { id: 7, name: full, type: dnsTypes.a }));
    };
    expect(of([soa(30, 5)]).negativeTtlSeconds).toBe(5);
    expect(of([soa(0, 5)]).negativeTtlSeconds).toBe(0);
    expect(of([])).toEqual({ rcode: dnsRcodes.nxDomain, answers: [] });
  });
  test("is cut to a truncated reply with its question when it is too long, and not over TCP", () => {
    const many = answer(
      Array.from({ length: 60 }, (_, index) => ({ type: "A", name: full, data: `10.0.0.${index}`, ttl: 5 })),
    );
    const asked = need(parseQuery(query("hello", { edns: 512 })));
    const short = dnsPacket.decode(Buffer.from(encodeReply(asked, many, asked.udpBytes)));
    expect(short).toMatchObject({
      flag_tc: true,
      answers: [],
      questions: [{ name: "hello" }],
      additionals: [{ type: "OPT" }],
    });
    const whole = dnsPacket.decode(Buffer.from(encodeReply(asked, many, 65_535)));
    expect([whole.flag_tc, whole.answers?.length]).toEqual([false, 60]);
  });
  test("keeps rcodes and addresses", () => {
    expect(answer([], dnsRcodes.nxDomain)).toEqual({ rcode: 3, answers: [] });
    expect(answer([])).toEqual({ rcode: 0, answers: [] });
    const record = need(answer([{ type: "A", name: full, data: "10.1.2.3", ttl: 5 }]).answers[0]);
    expect([...need(addressOf(record))]).toEqual([10, 1, 2, 3]);
  });
  test.each([
    ["another id", { id: 8, name: full, type: 1 }],
    ["another name", { id: 7, name: "other.default.svc.cluster.local", type: 1 }],
    ["another type", { id: 7, name: full, type: 28 }],
  ])("is refused for %s", (_, asked) => {
    const message = dnsPacket.encode({ type: "response", id: 7, questions: [{ type: "A", name: full }] });
    expect(parseAnswer(message, asked)).toBeUndefined();
  });
});

test(
  "random and mutated messages are read or refused, never thrown over, and pointer loops end",
  { timeout: 60_000 },
  () => {
    const sound = dnsPacket.encode({
      type: "response",
      id: 7,
      questions: [{ type: "A", name: full }],
      answers: [
        { type: "CNAME", name: full, data: "x.y.z" },
        { type: "SRV", name: full, data: { port: 1, target: "a.b" } },
      ],
    });
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc
        .array(fc.tuple(fc.nat(sound.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 6 })
        .map((changes) => {
          const copy = Uint8Array.from(sound);
          for (const [at, value] of changes) copy[at] = value;
          return copy;
        }),
    );
    fc.assert(
      fc.property(bytes, fc.boolean(), (message, asQuery) => {
        const copy = Uint8Array.from(message);
        if (asQuery && copy.length > 5) copy.set([0, 0, 0, 1], 2);
        const parsed = parseQuery(copy);
        if (parsed !== undefined) encodeReply(parsed, { rcode: 0, answers: [] }, 512);
        readQuestion(copy);
        parseAnswer(copy, { id: 7, name: full, type: 1 });
        return true;
      }),
      { numRuns: randomInputs() },
    );
    const loop = Uint8Array.of(0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1);
    expect(parseQuery(loop)).toBeUndefined();
  },
);
