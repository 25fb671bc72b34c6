// The branches of one query without sockets, and messages that nobody should have sent.
import dnsPacket from "dns-packet";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomInputs } from "#base/random-inputs.fake.ts";
import { parseAddress, parsePrefix } from "#packet/address.ts";
import { dnsRcodes, encodeName, type DnsAnswer, type DnsRecord } from "#packet/dns-message.ts";
import { Translation } from "#packet/translation.ts";
import { checkName, searchDomain } from "./names.ts";
import { checkAddress, Resolve } from "./resolve.ts";

const config = { clusterDomain: "cluster.local", namespace: "default", namespaces: ["default"] };
const decode = (bytes: Uint8Array | undefined): dnsPacket.DecodedPacket & { readonly rcode?: string } =>
  dnsPacket.decode(Buffer.from(bytes ?? []));
const query = (name: string, type: dnsPacket.RecordType = "A"): Buffer =>
  dnsPacket.encode({ type: "query", id: 7, questions: [{ type, name }] });

function setUp(cluster: DnsAnswer = { rcode: dnsRcodes.nxDomain, answers: [] }, host?: Uint8Array) {
  const asked: string[] = [];
  const forwarded: Uint8Array[] = [];
  const resolve = new Resolve(
    config,
    {
      isEcho: () => false,
      lookUp: (candidates) => {
        asked.push(candidates.join(" "));
        return Promise.resolve(cluster);
      },
    },
    {
      forward: (message) => {
        forwarded.push(message);
        return Promise.resolve(host);
      },
    },
  );
  return { resolve, asked, forwarded };
}

describe("Resolve", () => {
  test("gives addresses as the laptop sees them, and asks for a reverse name as the cluster has it", async () => {
    const mappings = [
      ["10.96.0.0/16", "240.0.0.0/16"],
      ["fd00:96::/112", "fd74:656c::/112"],
    ].map(([real = "", virtual = ""]) => ({ real: parsePrefix(real)!, virtual: parsePrefix(virtual)! }));
    const record = (type: number, text: string): DnsRecord => ({
      owner: undefined,
      type,
      class: 1,
      ttlSeconds: 3,
      data: parseAddress(text)!,
    });
    const answers = [record(1, "10.96.0.9"), record(28, "fd00:96::9"), record(1, "10.9.0.9")];
    const { resolve, asked } = setUp({ rcode: dnsRcodes.noError, answers });
    const subnets = mappings.map(({ virtual }) => virtual);
    resolve.setConfig({ ...config, translation: new Translation(mappings), subnets });
    const reply = decode(await resolve.answer(query("hello.default"), "udp"));
    expect(reply.answers?.map((answer) => "data" in answer && answer.data)).toEqual([
      "240.0.0.9",
      "fd74:656c::9",
      "10.9.0.9",
    ]);
    await resolve.answer(query("9.0.0.240.in-addr.arpa", "PTR"), "udp");
    const zeros = "0.".repeat(23);
    await resolve.answer(query(`9.${zeros}c.6.5.6.4.7.d.f.ip6.arpa`, "PTR"), "udp");
    expect(asked.slice(1)).toEqual(["9.0.96.10.in-addr.arpa", `9.${zeros}6.9.0.0.0.0.d.f.ip6.arpa`]);
  });

  test("keeps names of an answer below the suffix that was asked below", async () => {
    const wire = (name: string): Uint8Array => encodeName(name);
    const record = (type: number, data: Uint8Array, owner?: Uint8Array): DnsRecord => ({
      owner,
      type,
      class: 1,
      ttlSeconds: 3,
      data,
    });
    const target = wire("web-0.hello.default.svc.cluster.local");
    const long = wire(`${`${"a".repeat(60)}.`.repeat(3)}${"b".repeat(45)}.cluster.local`);
    const { resolve } = setUp({
      rcode: dnsRcodes.noError,
      answers: [
        record(5, target),
        record(1, Uint8Array.of(10, 96, 0, 9), target),
        record(33, Uint8Array.of(0, 0, 0, 1, 0, 80, ...target)),
        record(12, wire("www.example.com")),
        record(12, long),
      ],
    });
    resolve.setConfig({ ...config, connection: "dev", suffixOnly: true });
    const reply = decode(await resolve.answer(query("hello.default.dev.telepresence"), "udp"));
    const moved = "web-0.hello.default.svc.cluster.local.dev.telepresence";
    expect(reply.answers).toMatchObject([
      { name: "hello.default.dev.telepresence", data: moved },
      { name: moved, data: "10.96.0.9" },
      { data: { target: moved, port: 80 } },
      { data: "www.example.com" },
    ]);
  });

  test("leaves IPv6 out where the laptop has none, as if there were no such record", async () => {
    const answers = [{ owner: undefined, type: 28, class: 1, ttlSeconds: 3, data: parseAddress("fd00:96::9")! }];
    const { resolve, forwarded } = setUp({ rcode: dnsRcodes.noError, answers });
    expect(decode(await resolve.answer(query("hello.default", "AAAA"), "udp")).answers).toHaveLength(1);
    resolve.setConfig({ ...config, withoutIpv6: true });
    expect(decode(await resolve.answer(query("hello.default", "AAAA"), "udp"))).toMatchObject({
      rcode: "NOERROR",
      answers: [],
    });
    expect(forwarded).toEqual([]);
  });
  test("forwards other classes and opcodes untouched", async () => {
    const { resolve, asked, forwarded } = setUp(undefined, query("x"));
    const chaos = query("hello.default");
    chaos.writeUInt16BE(3, chaos.length - 2);
    const notify = query("hello.default");
    notify[2] = 4 << 3;
    for (const message of [chaos, notify]) await resolve.answer(message, "udp");
    expect(forwarded).toEqual([chaos, notify]);
    expect(asked).toEqual([]);
  });
  test("answers the check name itself, of type A only", async () => {
    const { resolve, forwarded } = setUp();
    expect(decode(await resolve.answer(query(checkName), "udp")).answers).toMatchObject([{ data: checkAddress }]);
    expect(decode(await resolve.answer(query(checkName, "AAAA"), "udp"))).toMatchObject({
      rcode: "NOERROR",
      answers: [],
    });
    expect(forwarded).toEqual([]);
  });
  test("never sends the search domain anywhere", async () => {
    const { resolve, forwarded } = setUp();
    for (const name of ["printer", "www.example.com", "wpad"]) {
      expect(decode(await resolve.answer(query(`${name}.${searchDomain}`), "udp")).rcode).toBe("NXDOMAIN");
    }
    expect(forwarded).toEqual([]);
  });
  test("passes on that a shared name exists at the host without such a record", async () => {
    const noData = dnsPacket.encode({ type: "response", id: 7, questions: [{ type: "AAAA", name: "printer" }] });
    const { resolve } = setUp(undefined, noData);
    expect(await resolve.answer(query("printer", "AAAA"), "udp")).toEqual(noData);
  });
  test("says SERVFAIL when no nameserver answers, FORMERR to half a question, nothing to a response", async () => {
    const { resolve } = setUp();
    expect(decode(await resolve.answer(query("example.com"), "udp")).rcode).toBe("SERVFAIL");
    expect((await resolve.answer(query("example.com").subarray(0, 16), "udp"))?.[3]).toBe(0x81);
    expect(await resolve.answer(Buffer.from(query("example.com")).fill(0x80, 2, 3), "udp")).toBeUndefined();
    expect(await resolve.answer(new Uint8Array(5), "udp")).toBeUndefined();
  });
  test("setConfig() changes what is ours at once", async () => {
    const { resolve, asked } = setUp();
    await resolve.answer(query("hello.staging"), "udp");
    resolve.setConfig({ ...config, namespaces: ["staging"] });
    await resolve.answer(query("hello.staging"), "udp");
    expect(asked).toEqual(["hello.staging.svc.cluster.local"]);
  });
});

test(
  "messages of noise and mutated queries are answered, forwarded or dropped, never thrown over",
  { timeout: 60_000 },
  async () => {
    const { resolve } = setUp();
    const inputs = randomInputs();
    const sound = query("hello.default.svc.cluster.local");
    const noise = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc
        .array(fc.tuple(fc.nat(sound.length - 1), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 5 })
        .map((changes) => {
          const copy = Uint8Array.from(sound);
          for (const [at, value] of changes) copy[at] = value;
          return copy;
        }),
    );
    await fc.assert(
      fc.asyncProperty(noise, async (message) => {
        const reply = await resolve.answer(message, "udp");
        return reply === undefined || (reply.length >= 12 && reply[0] === message[0] && reply[1] === message[1]);
      }),
      { numRuns: inputs },
    );
    expect(resolve.stats.queries).toBe(inputs);
  },
);
