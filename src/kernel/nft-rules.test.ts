// The bytes were read back by `nft list ruleset` when they were made; test/netns does so again with packets.
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { decodeAttributes, decodeMessages, decodeText, NetlinkWriter } from "./netlink.ts";
import {
  dnsRedirect,
  firstSynRedirect,
  inertRule,
  markAnswers,
  markForwarded,
  ownZone,
  udpRedirect,
  writeExpressions,
} from "./nft-rules.ts";
import type { Rule } from "./nft-rules.ts";

describe("firstSynRedirect()", () => {
  test("looks at the interface, the protocol, the port and the flags before it redirects", () => {
    expect(namesOf(firstSynRedirect(8080, 9900))).toEqual([
      "meta",
      "cmp",
      "meta",
      "cmp",
      "payload",
      "cmp",
      "payload",
      "bitwise",
      "cmp",
      "immediate",
      "redir",
    ]);
  });
  test("differs by its ports only", () => {
    expect(digest(firstSynRedirect(8080, 9900))).toBe(digest(firstSynRedirect(8080, 9900)));
    expect(digest(firstSynRedirect(8080, 9900))).not.toBe(digest(firstSynRedirect(8081, 9900)));
    expect(digest(firstSynRedirect(8080, 9900))).not.toBe(digest(firstSynRedirect(8080, 9901)));
  });
});

// Trap 53: an application of the agent's own user had its traffic left out of a mesh, by a rule on users.
test("no rule asks which user sent a packet", () => {
  const userOrGroup = [10, 11]; // NFT_META_SKUID, NFT_META_SKGID
  const marked = { mark: 1, zone: 1 };
  const dns = dnsRedirect({ nameservers: [Uint8Array.of(10, 0, 0, 53)], port: 53, slot: 1 });
  const rules = [
    ...markForwarded([4000], 1),
    firstSynRedirect(80, 24_900),
    udpRedirect(53, 24_900),
    inertRule(),
    ownZone(marked),
    ...dns,
  ];
  const keys = [...rules, ...markAnswers(marked)].flatMap(metaKeysOf);
  expect(keys.length).toBeGreaterThan(5);
  expect(keys.filter((key) => userOrGroup.includes(key))).toEqual([]);
  expect(metaKeysOf([(writer) => writer.text(1, "meta").nested(2, (data) => data.be32(1, 1).be32(2, 10))])).toEqual([
    10,
  ]);
});

describe("inertRule()", () => {
  test("reads conntrack's state, which keeps conntrack on, and ends in no verdict", () => {
    expect(namesOf(inertRule())).toEqual(["ct", "bitwise", "cmp", "counter"]);
  });
});

describe("dnsRedirect()", () => {
  test("lets what was forwarded pass before any redirect, for UDP and TCP", () => {
    const rules = dnsRedirect({ nameservers: [Uint8Array.of(10, 0, 0, 53), new Uint8Array(16)], port: 5353, slot: 2 });
    expect(rules.map((rule) => namesOf(rule).at(-1))).toEqual(["immediate", ...Array<string>(4).fill("redir")]);
    expect(namesOf(rules[0] ?? [])).toEqual(["meta", "bitwise", "cmp", "cmp", "immediate"]);
  });

  test("knows what was forwarded by bits of the mark, which leave the others as they are", () => {
    const rules = markForwarded([40_000, 40_001], 2);
    expect(rules.map(namesOf)).toEqual(
      Array<string[]>(4).fill(["meta", "cmp", "payload", "cmp", "payload", "cmp", "meta", "bitwise", "meta"]),
    );
    const bytes = Buffer.from(messageOf(rules[0] ?? [])).toString("hex");
    expect(bytes).toContain("0fffffff"); // all but the bits, in the host's order
    expect(bytes).toContain("30000000"); // slot 2's
  });
});

describe("ownZone() and markAnswers()", () => {
  const marked = { mark: 0x54454c50, zone: 0x5445 };
  test("touch marked packets and the answers to them, and nothing else", () => {
    expect(namesOf(ownZone(marked))).toEqual(["meta", "cmp", "immediate", "ct"]);
    expect(markAnswers(marked).map(namesOf)).toEqual([
      ["meta", "cmp", "immediate", "ct"],
      ["ct", "cmp", "immediate", "meta"],
    ]);
  });
  test("set the zone of the first direction, of two bytes in the host's order", () => {
    const bytes = Buffer.from(messageOf(ownZone(marked))).toString("hex");
    expect(bytes).toContain("06000100" + "4554"); // the value
    expect(bytes).toContain("08000200" + "00000011" + "05000300" + "00000000"); // NFT_CT_ZONE, original
  });
});

function messageOf(rule: Rule): Uint8Array {
  const writer = new NetlinkWriter();
  return writer
    .message({ type: 1, flags: 0, sequence: 1 }, new Uint8Array(0), (out) => writeExpressions(out, rule))
    .bytes();
}

/** What a rule loads of a packet's surroundings. */
function metaKeysOf(rule: Rule): readonly number[] {
  return rule.flatMap((expression) => {
    const [message] = decodeMessages(messageOf([expression]));
    const element = decodeAttributes(message?.payload ?? new Uint8Array(), 0).get(1) ?? new Uint8Array();
    const attributes = decodeAttributes(element, 0);
    if (decodeText(attributes.get(1) ?? new Uint8Array()) !== "meta") return [];
    const key = decodeAttributes(attributes.get(2) ?? new Uint8Array(), 0).get(2) ?? new Uint8Array(4);
    return [Buffer.from(key).readUInt32BE()];
  });
}

function namesOf(rule: Rule): readonly string[] {
  return rule.map((expression) => {
    const [message] = decodeMessages(messageOf([expression]));
    const element = decodeAttributes(message?.payload ?? new Uint8Array(), 0).get(1);
    return decodeText(decodeAttributes(element ?? new Uint8Array(), 0).get(1) ?? new Uint8Array());
  });
}

function digest(rule: Rule): string {
  return createHash("sha256").update(messageOf(rule)).digest("hex");
}
