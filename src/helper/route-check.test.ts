import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isAppError } from "#base/error.ts";
import type { Route } from "#kernel/rtnetlink-messages.ts";
import { formatPrefix, parseAddress, parsePrefix } from "#packet/address.ts";
import type { IpAddress, Prefix } from "#packet/address.ts";
import { checkRoutes, parseRoute } from "./route-check.ts";
import type { HostNetwork } from "./route-check.ts";

const prefix = (text: string): Prefix => parsePrefix(text) ?? { address: new Uint8Array(4), bits: 0 };
const address = (text: string): IpAddress => parseAddress(text) ?? new Uint8Array(4);

function route(destination: string, more: Partial<Route> = {}): Route {
  const base = { type: "unicast", table: 254, ifIndex: 2, gateway: undefined, source: undefined } as const;
  return { ...base, destination: prefix(destination), ...more };
}

const host: HostNetwork = {
  routes: [
    route("0.0.0.0/0", { gateway: address("192.0.2.1") }),
    route("0.0.0.0/1", { gateway: address("10.200.0.1"), ifIndex: 3 }),
    route("2000::/3"),
    route("192.0.2.0/24"),
    route("172.17.0.0/16", { ifIndex: 3 }),
    route("198.51.100.0/24", { type: "unreachable" }),
    route("203.0.113.0/24", { type: "throw" }),
    route("10.64.0.0/12", { ifIndex: 7 }),
  ],
  addresses: [{ ifIndex: 2, address: address("192.0.2.10"), bits: 24 }],
  resolvers: [address("10.255.255.53")],
  needed: [{ address: address("10.77.0.1"), device: "tel1000" }],
  linkName: (ifIndex) => (ifIndex === 7 ? "tel1000-1" : `link${ifIndex}`),
};
const refusal = (text: string, never: readonly string[] = [], overlap: readonly string[] = []): string => {
  try {
    checkRoutes([prefix(text)], host, { never: never.map(address), overlap: overlap.map(prefix) });
    return "";
  } catch (error) {
    return isAppError(error, "route_conflict") ? error.message : String(error);
  }
};

describe("checkRoutes()", () => {
  test.each([
    ["10.96.0.0/12", ""],
    ["10.0.0.0/8", "contains 10.200.0.1, a gateway"],
    ["10.255.255.53/32", "contains 10.255.255.53, a nameserver"],
    ["10.77.0.0/24", "contains 10.77.0.1, which the connection of tel1000 needs"],
    ["192.0.2.10/32", "own address on link2"],
    ["192.0.2.64/26", "overlaps this machine's route 192.0.2.0/24 dev link2"],
    ["172.16.0.0/12", "overlaps this machine's route 172.17.0.0/16 dev link3"],
    ["198.51.100.128/25", "overlaps this machine's route unreachable 198.51.100.0/24"],
    ["203.0.113.0/25", ""],
    ["fd00::/8", ""],
    ["fe80::/64", "link-local"],
    ["::1/128", "loopback"],
    ["255.255.255.255/32", "broadcast"],
  ])("%s: %j", (text, message) => {
    if (message === "") expect(refusal(text)).toBe("");
    else expect(refusal(text)).toContain(message);
  });

  test.each([
    ["172.17.3.0/24", "172.17.0.0/16", ""],
    ["172.17.3.0/24", "172.17.3.0/24", ""],
    ["172.17.3.0/24", "172.17.3.0/25", "overlaps this machine's route 172.17.0.0/16"],
    ["172.17.3.0/24", "172.18.0.0/16", "overlaps this machine's route 172.17.0.0/16"],
    ["172.17.0.0/16", "172.16.0.0/12", "overlaps this machine's route 172.17.0.0/16"], // which of the two counts?
    ["172.16.0.0/12", "172.16.0.0/12", "overlaps this machine's route 172.17.0.0/16"], // theirs would
    ["198.51.100.128/25", "198.51.100.0/24", ""],
    ["192.0.2.0/25", "192.0.2.0/24", "contains 192.0.2.10, this machine's own address"],
    ["10.65.0.0/16", "10.0.0.0/8", "overlaps this machine's route 10.64.0.0/12 dev tel1000-1"], // a connection's
    ["fd00:1::/64", "fd00::/8", ""],
  ])("%s inside of %s, which may overlap: %j", (text, allowed, message) => {
    if (message === "") expect(refusal(text, [], [allowed])).toBe("");
    else expect(refusal(text, [], [allowed])).toContain(message);
  });

  test("names both, also as fields", () => {
    const error = ((): unknown => {
      try {
        return checkRoutes([prefix("172.17.3.0/24")], host, { never: [], overlap: [] });
      } catch (caught) {
        return caught;
      }
    })();
    expect(isAppError(error) ? error.fields : {}).toEqual({ route: "172.17.3.0/24", against: ["172.17.0.0/16"] });
  });

  test("no route ever holds what may never be one", () => {
    const octets = fc.uint8Array({ minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(octets, fc.integer({ min: 0, max: 32 }), (bytes, bits) => {
        const text = `${bytes.join(".")}/${bits}`;
        expect(refusal(text, [bytes.join(".")])).not.toBe("");
      }),
    );
  });
});

describe("parseRoute()", () => {
  test("takes canonical text only", () => {
    expect(formatPrefix(parseRoute("fd00:96::/108"))).toBe("fd00:96::/108");
    for (const text of ["10.0.0.1/8", "10.0.0.0", "FD00::/8", "10.0.0.0/33", "", "10.0.0.0/8 dev eth0"]) {
      expect(() => parseRoute(text)).toThrow("is no route");
    }
  });
});
