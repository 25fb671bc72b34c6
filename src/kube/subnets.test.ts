// Trap 17: pod ranges polluted by host-network pods, ranges inside others, the service range of 1.33 and later.
// Trap 18: both families.
import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, test } from "vitest";
import { FakeApiServer, sendJson, sendStatus } from "./api-server.fake.ts";
import type { Answer } from "./api-server.fake.ts";
import type { Pod } from "./objects.ts";
import { coverIps, coverServiceIps, discoverSubnets, mergeSubnets, parseValidRange, podIps } from "./subnets.ts";

const { signal } = new AbortController();
const pod = (podIP: string, more: object = {}): Pod => ({
  metadata: {},
  spec: { containers: [], ...more },
  status: { podIP, podIPs: [{ ip: podIP }] },
});

describe("mergeSubnets()", () => {
  test.each([
    [["10.0.0.0/24", "10.0.1.0/24"], ["10.0.0.0/23"]],
    [
      ["10.0.1.0/24", "10.0.2.0/24"],
      ["10.0.1.0/24", "10.0.2.0/24"],
    ],
    [["10.0.0.0/8", "10.1.2.0/24", "10.0.0.0/8"], ["10.0.0.0/8"]],
    [["10.0.0.7/24"], ["10.0.0.0/24"]],
    [
      ["fd00::/64", "10.0.0.0/16", "fd00:0:0:1::/64"],
      ["10.0.0.0/16", "fd00::/63"],
    ],
    [["nonsense", "10.0.0.0/33"], []],
    [[], []],
  ])("%j gives %j", (cidrs, merged) => {
    expect(mergeSubnets(cidrs)).toEqual(merged);
  });
  test("holds exactly the addresses that were given", () => {
    const cidr = fc
      .tuple(fc.nat(255), fc.nat(255), fc.integer({ min: 8, max: 32 }))
      .map(([a, b, bits]) => `10.${a}.${b}.0/${bits}`);
    const isIn = (ip: string, cidrs: readonly string[]): boolean =>
      cidrs.some((item) => ipaddr.parse(ip).match(ipaddr.parseCIDR(item)));
    fc.assert(
      fc.property(fc.array(cidr, { maxLength: 12 }), fc.nat(255), fc.nat(255), fc.nat(255), (cidrs, a, b, c) => {
        const ip = `10.${a}.${b}.${c}`;
        expect(isIn(ip, mergeSubnets(cidrs))).toBe(isIn(ip, cidrs));
      }),
    );
  });
});

describe("what is visible", () => {
  test("covers pods by /24 and services by /16, host-network and ended pods left out", () => {
    const ended = { ...pod("10.9.9.9"), status: { podIP: "10.9.9.9", phase: "Succeeded" } };
    const ips = podIps([pod("10.1.2.3"), pod("192.168.0.1", { hostNetwork: true }), ended, pod("fd00::1:2")]);
    expect(coverIps(ips)).toEqual(["10.1.2.0/24", "fd00::/64"]);
    const services = ["10.96.0.1", "10.96.200.7", "None", ""].map((clusterIP) => ({
      metadata: {},
      spec: { clusterIP },
    }));
    expect(coverServiceIps(services)).toEqual(["10.96.0.0/16"]);
  });
  test("finds the range in the server's refusal", () => {
    const message =
      'Service "x" is invalid: spec.clusterIPs: Invalid value: ["1.1.1.1"]: failed to allocate IP 1.1.1.1: the provided IP (1.1.1.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16';
    expect(parseValidRange(message)).toEqual(["10.96.0.0/16"]);
    expect(parseValidRange("The range of valid IPs is fd00:1::/108")).toEqual(["fd00:1::/108"]);
    expect(parseValidRange("something else")).toEqual([]);
  });
});

describe("discoverSubnets()", () => {
  const answering =
    (routes: Readonly<Record<string, unknown>>): Answer =>
    ({ path, method, body }, response) => {
      const found = routes[path];
      if (method === "POST" && body.includes("1.1.1.1"))
        sendStatus(response, 422, "Invalid", "The range of valid IPs is 10.43.0.0/16");
      else if (method === "POST") sendStatus(response, 422, "Invalid", "IPv6 is not configured on this cluster");
      else if (found === undefined) sendStatus(response, 403, "Forbidden", `User "alice" cannot list`);
      else sendJson(response, { metadata: {}, items: found });
    };
  test("believes ServiceCIDR and the nodes", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = answering({
      "/apis/networking.k8s.io/v1/servicecidrs": [{ metadata: {}, spec: { cidrs: ["10.96.0.0/12", "fd00:1::/108"] } }],
      "/api/v1/nodes": [
        { metadata: {}, spec: { podCIDRs: ["10.42.0.0/24"] } },
        { metadata: {}, spec: { podCIDR: "10.42.1.0/24" } },
      ],
      "/api/v1/pods": [pod("10.42.0.9"), pod("172.16.0.1", { hostNetwork: true })],
    });
    expect(await discoverSubnets(server.open(), ["n"], signal)).toEqual({
      serviceSubnets: ["10.96.0.0/12", "fd00:1::/108"],
      podSubnets: ["10.42.0.0/23"],
      serviceSource: "ServiceCIDR",
      podSource: "nodes",
    });
  });
  test("asks with a service that cannot be, and covers the pods of one namespace", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = answering({ "/api/v1/namespaces/n/pods": [pod("10.1.2.3"), pod("10.1.3.3")] });
    expect(await discoverSubnets(server.open(), ["n"], signal)).toEqual({
      serviceSubnets: ["10.43.0.0/16"],
      podSubnets: ["10.1.2.0/23"],
      serviceSource: "dry-run Service",
      podSource: "visible pods",
    });
    expect(
      server.requests
        .filter((request) => request.method === "POST")
        .every((request) => request.query.get("dryRun") === "All"),
    ).toBe(true);
  });
  test("does not believe nodes' ranges that hold none of the pods", async () => {
    await using server = await new FakeApiServer().listen();
    server.answer = answering({
      "/api/v1/nodes": [{ metadata: {}, spec: { podCIDR: "10.244.0.0/24" } }],
      "/api/v1/pods": [pod("100.64.1.1")],
    });
    expect((await discoverSubnets(server.open(), [], signal)).podSubnets).toEqual(["100.64.1.0/24"]);
  });
});
