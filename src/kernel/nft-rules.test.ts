// The bytes were read back by `nft list ruleset` when they were made; test/netns does so again with packets.
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { decodeAttributes, decodeMessages, decodeText, NetlinkWriter } from "./netlink.ts";
import { dnsRedirect, firstSynRedirect, inertRule, markAnswers, ownZone, writeExpressions } from "./nft-rules.ts";
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

describe("inertRule()", () => {
  test("reads conntrack's state, which keeps conntrack on, and ends in no verdict", () => {
    expect(namesOf(inertRule())).toEqual(["ct", "bitwise", "cmp", "counter"]);
  });
});

describe("dnsRedirect()", () => {
  test("lets the daemon's own packets pass before any redirect, for UDP and TCP", () => {
    const rules = dnsRedirect({
      nameservers: [Uint8Array.of(10, 0, 0, 53), new Uint8Array(16)],
      port: 5353,
      upstreamSourcePorts: [40_000, 40_001],
    });
    expect(rules.map((rule) => namesOf(rule).at(-1))).toEqual([
      ...Array<string>(4).fill("immediate"),
      ...Array<string>(4).fill("redir"),
    ]);
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
