import { describe, expect, test } from "vitest";
import { clusterDomainOf, parseResolvConf } from "./resolv-conf.ts";

describe("parseResolvConf()", () => {
  test.each([
    [
      "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
      ["10.96.0.10"],
    ],
    ["# nameserver 1.1.1.1\n; nameserver 2.2.2.2\nnameserver\t9.9.9.9 # trailing\n", ["9.9.9.9"]],
    ["nameserver fd00::a\nnameserver fe80::1%eth0\nnameserver bogus\n", ["fd00::a", "fe80::1%eth0"]],
    [
      "nameserver 1.0.0.1\r\nnameserver 1.0.0.2\r\nnameserver 1.0.0.3\r\nnameserver 1.0.0.4\r\n",
      ["1.0.0.1", "1.0.0.2", "1.0.0.3"],
    ],
    ["", []],
  ])("reads the nameservers of %j", (text, expected) => {
    expect(parseResolvConf(text).nameservers).toEqual(expected);
  });
  test("the last search line wins", () => {
    expect(parseResolvConf("search a b\nsearch c\n").search).toEqual(["c"]);
  });
});

describe("clusterDomainOf()", () => {
  test.each([
    [["ns.svc.corp.example", "svc.corp.example", "corp.example"], "corp.example"],
    [["ns.svc.cluster.local", "svc.Cluster.Local."], "cluster.local"],
    [["example.org"], "cluster.local"],
    [[], "cluster.local"],
  ])("finds it in %j", (search, expected) => {
    expect(clusterDomainOf({ nameservers: [], search })).toBe(expected);
  });
});
