// Traps 11–13 and 15: a VPN, Docker or the laptop's own network has addresses of the cluster.
import { describe, expect, test } from "vitest";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { formatAddress, parseAddress, parsePrefix, prefixesOverlap, type IpAddress } from "#packet/address.ts";
import { DeviceRoutes, type DeviceRoutesOptions, type RoutingWishes } from "./device-routes.ts";

/** A helper on a machine that has these routes. */
class Host {
  routes: readonly string[] = [];
  readonly taken: Record<string, string>;
  constructor(taken: Record<string, string> = {}) {
    this.taken = taken;
  }
  setRoutes({ routes }: { readonly routes: readonly string[] }): Promise<void> {
    for (const route of routes) {
      for (const [other, device] of Object.entries(this.taken)) {
        if (!prefixesOverlap(parsePrefix(route)!, parsePrefix(other)!)) continue;
        const message = `the cluster's range ${route} overlaps this machine's route ${other} dev ${device}`;
        const fields = { route, against: [other] };
        return Promise.reject(new AppError("route_conflict", message, { fields }));
      }
    }
    this.routes = [...routes].sort();
    return Promise.resolve();
  }
}

const nothing: RoutingWishes = { also: [], never: [], apiServer: [], vnat: [] };
const ranges = { services: ["10.96.0.0/16"], pods: ["10.244.0.0/16"], complete: true };

function setUp(
  helper: Host,
  wishes: Partial<RoutingWishes> = {},
  more: Partial<DeviceRoutesOptions> = {},
): DeviceRoutes {
  return new DeviceRoutes({
    helper,
    wishes: { ...nothing, ...wishes },
    ranges,
    nameservers: [],
    families: [4],
    lookFor: () => Promise.resolve(),
    onTranslation: () => undefined,
    log: silentLogger,
    ...more,
  });
}
const address = (text: string): IpAddress => parseAddress(text)!;
const seen = (routes: DeviceRoutes, text: string): string => {
  const virtual = routes.translation.toVirtual(address(text));
  return virtual === undefined ? text : formatAddress(virtual);
};

describe("a range whose addresses this machine uses for something else", () => {
  test("is seen at other addresses, with the reason, and the rest where it is", async () => {
    const host = new Host({ "10.0.0.0/9": "tun0" });
    const routes = setUp(host);
    await routes.apply();
    expect(host.routes).toEqual(["10.244.0.0/16", "240.0.0.0/16"]);
    expect([seen(routes, "10.96.3.4"), seen(routes, "10.244.3.4")]).toEqual(["240.0.3.4", "10.244.3.4"]);
    const because = "the cluster's range 10.96.0.0/16 overlaps this machine's route 10.0.0.0/9 dev tun0";
    expect(routes.status().translated).toEqual([{ subnet: "10.96.0.0/16", seenAs: "240.0.0.0/16", because }]);
    expect(routes.warnings).toEqual([`${because}; here its addresses are seen at 240.0.0.0/16`]);
  });
  test("is seen elsewhere as a whole, also when only a part collides", async () => {
    const host = new Host({ "10.244.7.0/24": "eth0", "10.96.0.0/12": "tun0" });
    const routes = setUp(host, { never: ["10.244.7.7"] });
    await routes.apply();
    expect(host.routes).toEqual(["240.0.0.0/16", "240.1.0.0/16"]);
    expect(seen(routes, "10.244.7.7")).toBe("10.244.7.7");
  });
  test("avoids what this machine has in use of the other addresses, too", async () => {
    const host = new Host({ "10.96.0.0/16": "tun0", "240.0.0.0/12": "tun1" });
    const routes = setUp(host);
    await routes.apply();
    expect(host.routes).toEqual(["10.244.0.0/16", "240.16.0.0/16"]);
  });
  // GKE lets pods have addresses of class E: services were shown over them, and pods were gone.
  test("is not seen where the cluster, --also-proxy or --never-proxy has addresses", async () => {
    const host = new Host({ "10.96.0.0/16": "tun0" });
    const wishes = { also: ["240.1.0.0/24"], never: ["240.2.3.4"] };
    const routes = setUp(host, wishes, { ranges: { ...ranges, pods: ["240.0.0.0/16"] } });
    await routes.apply();
    expect(host.routes).toEqual(["240.0.0.0/16", "240.1.0.0/24", "240.3.0.0/16"]);
    expect(routes.translation.toReal(address("240.0.3.4"))).toBeUndefined();
  });
  test("is refused, and both routes named, where that is not wanted", async () => {
    const routes = setUp(new Host({ "10.96.0.0/16": "tun0" }), { vnat: ["off"] });
    await expect(routes.apply()).rejects.toThrow("10.96.0.0/16 overlaps this machine's route 10.96.0.0/16 dev tun0");
  });
  test("is refused when the user asked for it by its addresses", async () => {
    const routes = setUp(new Host({ "192.168.7.0/24": "eth0" }), { also: ["192.168.7.0/24"] });
    await expect(routes.apply()).rejects.toMatchObject({ code: "route_conflict" });
  });
  test("is refused when there is no room for it", async () => {
    const routes = setUp(new Host({ "10.0.0.0/8": "tun0" }), { virtualSubnet: "246.246.0.0/24" });
    await expect(routes.apply()).rejects.toThrow("246.246.0.0/24 has no room to show 10.");
  });
});

test("tells the helper what may take a part of a wider route of this machine, and status says it", async () => {
  const told: unknown[] = [];
  const host = new Host();
  const helper = {
    setRoutes: (params: { readonly routes: readonly string[]; readonly overlap?: readonly string[] | undefined }) => {
      told.push(params.overlap);
      return host.setRoutes(params);
    },
  };
  const options = { helper } as unknown as Partial<DeviceRoutesOptions>;
  await setUp(host, {}, options).apply();
  const routes = setUp(host, { overlap: ["10.96.7.7/16"] }, options);
  await routes.apply();
  expect(told).toEqual([undefined, ["10.96.0.0/16"]]);
  expect(routes.status()).toMatchObject({ overlap: ["10.96.7.7/16"] });
});

describe("--vnat", () => {
  test.each([
    [["service"], ["10.244.0.0/16", "240.0.0.0/16"]],
    [["pods"], ["10.96.0.0/16", "240.0.0.0/16"]],
    [["all"], ["240.0.0.0/16", "240.1.0.0/16", "240.2.0.0/24"]],
    [["also"], ["10.244.0.0/16", "10.96.0.0/16", "240.0.0.0/24"]],
    [
      ["10.96.128.0/17", "off"],
      ["10.244.0.0/16", "10.96.0.0/17", "240.0.0.0/17"],
    ],
  ])("%j", async (vnat, expected) => {
    const host = new Host();
    const also = vnat.includes("also") || vnat.includes("all") ? ["192.168.7.0/24"] : [];
    await setUp(host, { vnat, also }).apply();
    expect(host.routes).toEqual(expected);
  });
});

describe("what this machine reaches by itself", () => {
  test("is left on its own way, and told", async () => {
    const host = new Host({ "10.244.0.0/16": "eth0" });
    const routes = setUp(host, {}, { reached: { pods: true, services: false, by: "eth0" } });
    await routes.apply();
    await routes.setRanges({ ...ranges, pods: ["10.244.0.0/15"] });
    await routes.cover(["10.245.0.7"]);
    expect(host.routes).toEqual(["10.96.0.0/16"]);
    expect(routes.status().reached).toEqual(["10.244.0.0/15"]);
    expect(routes.warnings).toEqual([
      "this machine reaches 10.244.0.0/15 of the cluster by itself, by eth0: not routed here",
    ]);
    // Names of its addresses are the cluster's all the same.
    expect(routes.ranges).toHaveLength(2);
  });
  test("goes to the cluster where the user wants it at other addresses, or names it", async () => {
    const host = new Host();
    const reached = { pods: true, services: true, by: "eth0" };
    await setUp(host, { vnat: ["pods"], also: ["10.96.0.0/24"] }, { reached }).apply();
    expect(host.routes).toEqual(["10.96.0.0/24", "240.0.0.0/16"]);
  });
});

describe("while connected", () => {
  test("ranges that come are routed, and seen elsewhere if need be", async () => {
    const host = new Host({ "10.245.0.0/16": "tun0" });
    const routes = setUp(host);
    await routes.apply();
    await routes.setRanges({ ...ranges, pods: ["10.244.0.0/16", "10.245.0.0/16"] });
    expect(host.routes).toEqual(["10.244.0.0/16", "10.96.0.0/16", "240.0.0.0/16"]);
  });
  test("a family that the device has no address of is told, not routed", async () => {
    const host = new Host();
    const routes = setUp(host);
    await routes.setRanges({ ...ranges, pods: ["10.244.0.0/16", "fd00:244::/64"] });
    expect(host.routes).toEqual(["10.244.0.0/16", "10.96.0.0/16"]);
    expect(routes.status().unrouted).toEqual(["fd00:244::/64"]);
    expect(routes.warnings).toEqual([]);
    const off = setUp(host, {}, { laptopHasIpv6: false, ranges: { ...ranges, pods: ["fd00:244::/64"] } });
    await off.apply();
    expect(off.warnings).toEqual(["this laptop has IPv6 switched off: fd00:244::/64 of the cluster cannot be reached"]);
  });
  test("an answered address outside of the ranges is a reason to look again", async () => {
    const host = new Host();
    const asked: (readonly string[])[] = [];
    const routes: DeviceRoutes = setUp(
      host,
      { never: ["10.1.0.0/16"] },
      {
        lookFor: async (addresses) => {
          asked.push(addresses);
          await routes.setRanges({ ...ranges, pods: ["10.244.0.0/16", "10.245.0.0/16"] });
        },
      },
    );
    await routes.apply();
    await routes.cover(["10.96.0.10", "10.245.3.4", "93.184.216.34", "10.1.2.3"]);
    expect(asked).toEqual([["10.245.3.4"]]);
    expect(host.routes).toContain("10.245.0.0/16");
  });
  test("where ranges were guessed, such an address gets a route, and never one that is not to be routed", async () => {
    const host = new Host({ "192.168.1.1/32": "eth0" });
    const routes = setUp(host, { never: ["10.1.0.0/16"] }, { ranges: { ...ranges, complete: false } });
    await routes.apply();
    await routes.cover(["10.9.0.1", "10.1.2.3", "192.168.1.1"]);
    expect(host.routes).toEqual(["10.244.0.0/16", "10.9.0.1/32", "10.96.0.0/16", "240.0.0.0/32"]);
  });
});
