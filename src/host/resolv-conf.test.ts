// Stories: the last nameserver was used instead of the first, an IPv6 one broke the resolver, `;` was not a comment
// (trap 1 of the original: 2.5.2, 2.5.0, 2.23.4).
import { describe, expect, test } from "vitest";
import { parseResolvConf } from "./resolv-conf.ts";

describe("parseResolvConf()", () => {
  test.each<[string, string, readonly string[]]>([
    ["the first of several", "nameserver 10.0.0.1\nnameserver 10.0.0.2\n", ["10.0.0.1", "10.0.0.2"]],
    [
      "three and no more",
      [1, 2, 3, 4].map((n) => `nameserver 10.0.0.${n}`).join("\n"),
      ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    ],
    ["IPv6", "nameserver 2001:db8::53\n", ["2001:db8::53"]],
    ["IPv6 with a zone", "nameserver fe80::1%eth0\nnameserver 10.0.0.1", ["fe80::1%eth0", "10.0.0.1"]],
    [
      "# and ; as comments",
      "# nameserver 1.1.1.1\n; nameserver 1.1.1.2\n;nameserver 1.1.1.3\nnameserver 10.0.0.1",
      ["10.0.0.1"],
    ],
    [
      "a comment behind the address",
      "nameserver 10.0.0.1 # router\nnameserver 10.0.0.2 ; other",
      ["10.0.0.1", "10.0.0.2"],
    ],
    ["tabs and Windows line ends", "nameserver\t10.0.0.1\r\nnameserver   10.0.0.2  \r\n", ["10.0.0.1", "10.0.0.2"]],
    ["nothing", "", []],
    ["no address", "nameserver\nnameserver resolver.example\nnameserver 1.2.3", []],
    ["an indented line, as the C library does", " nameserver 10.0.0.1", []],
    ["a keyword that only begins alike", "nameservers 10.0.0.1", []],
  ])("reads %s", (_, text, nameservers) => {
    expect(parseResolvConf(text).nameservers).toEqual(nameservers);
  });

  test("takes the last search or domain line, lower case and without final dots", () => {
    expect(parseResolvConf("domain a.example\nsearch B.Example. c.example\n").search).toEqual([
      "b.example",
      "c.example",
    ]);
    expect(parseResolvConf("search a.example\ndomain b.example\n").search).toEqual(["b.example"]);
    expect(parseResolvConf("search .\n").search).toEqual([]);
  });

  test("reads options of several lines, and ndots within its bounds", () => {
    const parsed = parseResolvConf("options ndots:2 rotate\noptions timeout:1 ndots:5\n");
    expect(parsed.options).toEqual(["ndots:2", "rotate", "timeout:1", "ndots:5"]);
    expect(parsed.ndots).toBe(5);
    expect(parseResolvConf("options ndots:99").ndots).toBe(15);
    expect(parseResolvConf("").ndots).toBe(1);
  });
});
