import { decode, encode, type Packet } from "dns-packet";
import { describe, expect, test } from "vitest";
import { publicWebAddress } from "./layout.ts";
import { answerDns } from "./public-server.ts";

function ask(name: string, type: "A" | "AAAA" = "A"): Packet & { rcode?: string } {
  const answer = answerDns(encode({ type: "query", id: 9, flags: 0x100, questions: [{ type, name }] }), "192.0.2.1");
  return decode(Buffer.from(answer ?? []));
}

describe("answerDns()", () => {
  test("answers a known name in any case", () => {
    const answer = ask("Example.COM");
    expect(answer.id).toBe(9);
    expect(answer.answers).toMatchObject([{ type: "A", name: "Example.COM", data: publicWebAddress }]);
  });
  test("says that a known name has no IPv6 address, and not that it does not exist", () => {
    const answer = ask("example.com", "AAAA");
    expect(answer.rcode).toBe("NOERROR");
    expect(answer.answers).toEqual([]);
  });
  test("says that any other name does not exist", () => {
    expect(ask("hello.default.svc.cluster.local").rcode).toBe("NXDOMAIN");
  });
  test("is silent to what is not a query", () => {
    expect(answerDns(Buffer.from("nonsense"), "192.0.2.1")).toBeUndefined();
    expect(answerDns(Buffer.alloc(0), "192.0.2.1")).toBeUndefined();
  });
});
