// The root helper with a real device, in namespaces (laptop.ts draws them): what it sets up, what it refuses.
//
// Stories: an overlap with a VPN's 10/8 broke both the VPN and the cluster (trap 11); the API server inside the pod
// range was proxied into itself (trap 12); the local nameserver inside a routed range (trap 13); a blackhole route
// made "the routing table inconsistent" (trap 15); a range's first and last address were unreachable (trap 16).
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { Helper, HelperDoor } from "#daemon/helper-client.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import { gateway, Laptop, laptopAddress, nameservers } from "./laptop.ts";
import type { HelperProcess } from "./laptop.ts";

const signal = new AbortController().signal;
const addresses = ["246.246.0.1/29", "fd74:656c::1/125"];

let laptop: Laptop;
let door: HelperDoor;
let helper: Helper;
let helperProcess: HelperProcess;

beforeEach(async () => {
  laptop = new Laptop();
  door = await openHelperDoor({ path: `${laptop.directory}/helper.sock`, clock: systemClock, log: silentLogger });
  helperProcess = await laptop.startHelper(`${laptop.directory}/helper.sock`);
  helper = await door.wait(signal);
});
afterEach(async () => {
  await door[Symbol.asyncDispose]();
  await laptop[Symbol.asyncDispose]();
});

describe("device and routes", () => {
  test("packets to a routed address reach the daemon, and its answers the program", async () => {
    const { device, name } = await helper.openDevice({ addresses, mtu: 65_535 });
    await helper.setRoutes({ routes: ["10.96.0.0/12", "fd00:96::/108"], never: [] });
    device.onPacket((packet) => device.write(swapEnds(packet)));
    expect(laptop.ip("link", "show", name)).toContain("mtu 65535");
    for (const target of ["10.96.0.1", "10.96.0.0", "10.111.255.255", "fd00:96::7"]) {
      expect(await laptop.exec([process.execPath, "-e", udpEcho, target])).toBe("echo\n");
    }
    device.close();
  });

  test("the device gets no IPv6 address of the kernel's own", async () => {
    const { device, name } = await helper.openDevice({ addresses, mtu: 1500 });
    expect(laptop.ip("-6", "addr", "show", "dev", name)).not.toContain("fe80");
    device.close();
  });

  test("routes.set applies the difference, and bye leaves nothing", async () => {
    const before = laptop.snapshot();
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    expect(await helper.setRoutes({ routes: ["10.96.0.0/12", "10.244.0.0/24"], never: [] })).toEqual({
      added: 2,
      removed: 0,
    });
    expect(await helper.setRoutes({ routes: ["10.96.0.0/12", "10.244.1.0/24"], never: [] })).toEqual({
      added: 1,
      removed: 1,
    });
    expect(laptop.ip("route")).not.toContain("10.244.0.0/24");
    await helper.close();
    device.close();
    expect(await helperProcess.ended).toBe(0);
    await expect.poll(() => laptop.snapshot()).toBe(before);
  });

  // A route that somebody else had taken away was believed to be there, and never came back.
  test("a route that another program took away is set again, or counts as taken away", async () => {
    const { device, name } = await helper.openDevice({ addresses, mtu: 1500 });
    await helper.setRoutes({ routes: ["10.96.0.0/12", "10.244.0.0/24", "fd00:96::/108"], never: [] });
    laptop.ip("route", "flush", "dev", name, "proto", "static");
    laptop.ip("-6", "route", "flush", "dev", name, "proto", "static");
    expect(await helper.setRoutes({ routes: ["10.96.0.0/12", "fd00:96::/108"], never: [] })).toEqual({
      added: 2,
      removed: 1,
    });
    expect(laptop.ip("route")).toContain(`10.96.0.0/12 dev ${name}`);
    expect(laptop.ip("-6", "route")).toContain(`fd00:96::/108 dev ${name}`);
    device.close();
  });

  test("thousands of routes fit, and a refused one undoes its whole set", async () => {
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    const many = Array.from({ length: 2000 }, (_, index) => `10.${index >> 8}.${index & 255}.0/24`);
    expect((await helper.setRoutes({ routes: many, never: [] })).added).toBe(2000);
    await expect(helper.setRoutes({ routes: ["10.200.0.0/16", "192.0.2.128/25"], never: [] })).rejects.toThrow(
      "overlaps",
    );
    expect(laptop.ip("route").match(/^10\./gm)).toHaveLength(2000);
    device.close();
  });

  test.each([
    ["a default route", "0.0.0.0/0", "too wide"],
    ["half of one", "128.0.0.0/1", "too wide"],
    ["an IPv6 default", "2000::/3", "too wide"],
    ["loopback", "127.0.0.0/8", "loopback"],
    ["link-local", "169.254.0.0/16", "link-local"],
    ["the host's own address", `${laptopAddress}/32`, "own address on eth0"],
    ["the gateway", `${gateway}/32`, "a gateway"],
    ["the nameserver", `${nameservers[0]}/32`, "a nameserver"],
    ["what may never be one", "203.0.113.0/24", "203.0.113.7, which must stay reachable"],
    ["the local network's other half", "192.0.2.128/25", "overlaps this machine's route 192.0.2.0/24 dev eth0"],
    ["a wider VPN's part", "10.1.0.0/16", "overlaps this machine's route 10.0.0.0/8 via 192.0.2.1 dev eth0"],
    ["what holds a VPN's part", "172.16.0.0/12", "overlaps this machine's route 172.20.0.0/16 via 192.0.2.1"],
    ["a blackhole", "198.51.100.0/24", "overlaps this machine's route blackhole 198.51.100.0/25"],
    ["an IPv6 network", "2001:db8:2::/64", "own address on eth0"],
    ["bits behind the prefix", "10.0.0.1/8", "canonical form"],
    ["an argument", "-x 10/8", "is no route"],
  ])("refuses %s as a route", async (_, route, text) => {
    laptop.ip("route", "add", "10.0.0.0/8", "via", gateway);
    laptop.ip("route", "add", "172.20.0.0/16", "via", gateway);
    laptop.ip("route", "add", "blackhole", "198.51.100.0/25");
    laptop.ip("route", "add", "0.0.0.0/1", "via", gateway); // a VPN's halved default is none of these
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    const refused = helper.setRoutes({ routes: [route], never: ["203.0.113.7"] });
    await expect(refused).rejects.toThrow(text);
    // By these the daemon shows a range of the cluster at other addresses.
    if (text.includes("this machine")) await expect(refused).rejects.toMatchObject({ fields: { route } });
    device.close();
  });

  test("a route that may overlap takes its part of a VPN's wider one, which is whole again afterwards", async () => {
    laptop.ip("route", "add", "10.0.0.0/8", "via", gateway);
    const before = laptop.snapshot();
    const { device, name } = await helper.openDevice({ addresses, mtu: 1500 });
    const routes = ["10.96.0.0/16", "10.244.0.0/24"];
    await expect(helper.setRoutes({ routes, never: [], overlap: ["10.96.0.0/12"] })).rejects.toMatchObject({
      fields: { route: "10.244.0.0/24", against: ["10.0.0.0/8"] },
    });
    await helper.setRoutes({ routes, never: [], overlap: ["10.96.0.0/12", "10.244.0.0/16"] });
    for (const target of ["10.96.0.1", "10.244.0.9"]) {
      expect(laptop.ip("route", "get", target)).toContain(`dev ${name}`);
    }
    for (const target of ["10.97.0.1", "10.244.1.1"]) {
      expect(laptop.ip("route", "get", target)).toContain(`via ${gateway} dev eth0`);
    }
    await helper.close();
    device.close();
    expect(await helperProcess.ended).toBe(0);
    await expect.poll(() => laptop.snapshot()).toBe(before);
  });

  test("names the VPN whose rule takes the packets in spite of the route", async () => {
    laptop.ip("route", "add", "default", "via", gateway, "table", "99");
    laptop.ip("rule", "add", "to", "10.96.0.0/12", "lookup", "99");
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    await expect(helper.setRoutes({ routes: ["10.96.0.0/12"], never: [] })).rejects.toMatchObject({
      message: expect.stringContaining("go to eth0 in spite of"),
      fields: { route: "10.96.0.0/12" },
    });
    expect(laptop.ip("route")).not.toContain("10.96");
    device.close();
  });
});

describe("two sessions of a user", () => {
  const secondAddresses = ["246.246.0.9/29", "fd74:656c::9/125"];
  let secondDoor: HelperDoor;
  let second: Helper;
  let devices: readonly PacketDevice[];

  beforeEach(async () => {
    const path = `${laptop.directory}/second.sock`;
    secondDoor = await openHelperDoor({ path, clock: systemClock, log: silentLogger });
    await laptop.startHelper(path);
    second = await secondDoor.wait(signal);
    const opened = [
      await helper.openDevice({ addresses, mtu: 1500 }),
      await second.openDevice({ slot: 1, addresses: secondAddresses, mtu: 1500 }),
    ];
    devices = opened.map(({ device }) => device);
  });
  afterEach(async () => {
    for (const device of devices) device.close();
    await secondDoor[Symbol.asyncDispose]();
  });

  test("have a device each; a slot that is taken says so, and its addresses are nobody else's", async () => {
    const path = `${laptop.directory}/third.sock`;
    const door = await openHelperDoor({ path, clock: systemClock, log: silentLogger });
    await laptop.startHelper(path);
    const third = await door.wait(signal);
    for (const [slot, taken] of [
      [undefined, "tel0"],
      [1, "tel0-1"],
    ] as const) {
      await expect(third.openDevice({ slot, addresses: ["246.246.1.1/29"], mtu: 1500 })).rejects.toMatchObject({
        message: `the network device ${taken} exists: another connection of this user has it`,
        fields: { taken },
      });
    }
    await expect(third.openDevice({ slot: 2, addresses, mtu: 1500 })).rejects.toThrow(
      "contains 246.246.0.1, this machine's own address on tel0",
    );
    expect(laptop.ip("link")).not.toContain("tel0-2");
    await door[Symbol.asyncDispose]();
  });

  test("a route that overlaps the other's is refused, and names it", async () => {
    expect(laptop.ip("link")).toMatch(/tel0: [^]*tel0-1: /);
    await helper.setRoutes({ routes: ["10.96.0.0/12", "fd00:96::/108"], never: [] });
    for (const [route, against] of [
      ["10.96.0.0/12", "10.96.0.0/12"],
      ["10.97.0.0/16", "10.96.0.0/12"],
      ["10.0.0.0/8", "10.96.0.0/12"],
      ["fd00::/16", "fd00:96::/108"],
    ] as const) {
      await expect(second.setRoutes({ routes: [route], never: [] })).rejects.toMatchObject({
        message: `the cluster's range ${route} overlaps this machine's route ${against} dev tel0`,
        fields: { route, against: [against] },
      });
    }
    await second.setRoutes({ routes: ["10.112.0.0/12"], never: [] });
    await expect(helper.setRoutes({ routes: ["10.96.0.0/11"], never: [] })).rejects.toThrow("10.112.0.0/12 dev tel0-1");
  });

  // Story: a private cluster's API server in the other cluster's pod range would have been asked through that cluster.
  test("a route that takes what the other needs outside of its cluster is refused", async () => {
    await second.setRoutes({ routes: [], never: ["203.0.113.7", "2001:db8:9::7"] });
    await expect(helper.setRoutes({ routes: ["203.0.113.0/24"], never: [] })).rejects.toMatchObject({
      message: expect.stringContaining("contains 203.0.113.7, which the connection of tel0-1 needs"),
      fields: { route: "203.0.113.0/24", against: ["203.0.113.7"] },
    });
    await expect(helper.setRoutes({ routes: ["2001:db8:9::/64"], never: [] })).rejects.toThrow("2001:db8:9::7, which");
    await second.close();
    devices[1]?.close();
    await helper.setRoutes({ routes: ["203.0.113.0/24"], never: [] });
  });

  // A second cluster whose API server is reached through the first: the next change of the first one's ranges was refused
  // for it, and what programs were using already was moved to other addresses.
  test("what one needs and reaches by the other's device does not stand against that one's routes", async () => {
    await helper.setRoutes({ routes: ["203.0.113.0/24", "2001:db8:9::/64"], never: [] });
    await second.setRoutes({ routes: [], never: ["203.0.113.7", "2001:db8:9::7", "198.51.100.7"] });
    await helper.setRoutes({ routes: ["203.0.113.0/24", "2001:db8:9::/64", "10.96.0.0/12"], never: [] });
    await expect(helper.setRoutes({ routes: ["198.51.100.0/24"], never: [] })).rejects.toThrow("198.51.100.7, which");
  });

  // The kernel's bound counts the byte that ends the text.
  test("needs that fill the device's alias to the last byte are no error", async () => {
    const long = Array.from({ length: 13 }, (_, index) => `203.113.100.${100 + index}`);
    for (const last of ["203.0.1.7", "203.0.1.77", "2001:db8::1"]) {
      await helper.setRoutes({ routes: [], never: [...long, last] });
    }
    expect(laptop.ip("link", "show", "tel0")).toContain("203.113.100.112");
  });

  test("of two that add at the same time what overlaps, at most one has it", async () => {
    for (let round = 0; round < 20; round++) {
      const outcomes = await Promise.allSettled([
        helper.setRoutes({ routes: ["10.0.0.0/9"], never: [] }),
        second.setRoutes({ routes: ["10.96.0.0/12"], never: [] }),
      ]);
      const done = outcomes.filter(({ status }) => status === "fulfilled").length;
      expect(done).toBeLessThan(2);
      expect(laptop.ip("route").match(/^10\./gm) ?? []).toHaveLength(done);
      await Promise.all([helper, second].map((each) => each.setRoutes({ routes: [], never: [] })));
    }
  });

  test.each([0, 1])("number %d may go with its daemon and leaves the other whole", async (which) => {
    const sessions = [helper, second] as const;
    await helper.setRoutes({ routes: ["10.96.0.0/12"], never: [] });
    await second.setRoutes({ routes: ["10.112.0.0/12"], never: [] });
    const [gone, left] = [["tel0 ", "tel0-1 "][which] ?? "", ["tel0-1 ", "tel0 "][which] ?? ""];
    await sessions[which]?.close();
    devices[which]?.close();
    await expect.poll(() => laptop.ip("route")).not.toContain(`dev ${gone}`);
    expect(laptop.ip("route").match(new RegExp(`^10.*dev ${left}`, "m"))).not.toBeNull();
    expect(laptop.ip("-6", "addr")).toContain(left.trim());
  });
});

describe("sessions", () => {
  test("a session beside another user's is refused", async () => {
    laptop.ip("link", "add", "tel1234", "type", "veth", "peer", "name", "peer");
    laptop.ip("address", "add", addresses[0]!, "dev", "tel1234");
    await expect(helper.openDevice({ addresses, mtu: 1500 })).rejects.toThrow(
      "the network device tel1234 exists: another user of this machine is connected",
    );
  });

  // Two that look at the same time see no device, and make one each: with the same addresses, and look-ups of both users.
  test("a session that has its device beside another user's gets no routes", async () => {
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    laptop.ip("link", "add", "tel1234", "type", "veth", "peer", "name", "peer");
    await expect(helper.setRoutes({ routes: ["10.96.0.0/12"], never: [] })).rejects.toThrow(
      "the network device tel1234 exists: another user of this machine is connected",
    );
    expect(laptop.ip("route")).not.toContain("10.96.");
    device.close();
  });

  test("a device, routes and hooks have an order", async () => {
    await expect(helper.setRoutes({ routes: [], never: [] })).rejects.toThrow("expected `device.open` first");
    const { device } = await helper.openDevice({ addresses, mtu: 1500 });
    await expect(helper.openDevice({ addresses, mtu: 1500 })).rejects.toThrow("is open already");
    device.close();
  });

  test("the daemon of another user than sudo's is refused", async () => {
    const path = `${laptop.directory}/other.sock`;
    const other = laptop.start(
      "laptop",
      ["setpriv", "--reuid=1234", "--clear-groups", process.execPath, "-e", listener, path],
      ["ignore", "pipe", "inherit"],
    );
    laptop.run(["chmod", "777", laptop.directory]);
    await new Promise((resolve) => other.stdout?.once("data", resolve));
    const refused = await laptop.startHelper(path, { SUDO_UID: "1000" });
    expect(await refused.ended).toBe(1);
    expect(refused.log()).toContain("the daemon belongs to user 1234, and sudo was called by user 1000");
  });
});

/** Sends a datagram to the address and prints what comes back. */
const udpEcho = `
const target = process.argv[1];
const socket = require("dgram").createSocket(target.includes(":") ? "udp6" : "udp4");
socket.on("message", (message) => { console.log(String(message)); socket.close(); });
socket.send("echo", 7, target);
`;

/** Listens on the path until killed; retries while the directory is not yet open to it. */
const listener = `
const server = require("net").createServer(() => undefined);
const listen = () => server.listen(process.argv[1], () => console.log("ready"));
server.on("error", () => setTimeout(listen, 20));
listen();
`;

/** A UDP packet with its ends swapped, ports too, so that it comes back to its sender; checksums stay right. */
function swapEnds(packet: Uint8Array): Uint8Array {
  const isIpv4 = (packet[0] ?? 0) >> 4 === 4;
  const [source, length, transport] = isIpv4 ? [12, 4, 20] : [8, 16, 40];
  const swapped = Uint8Array.from(packet);
  swapped.set(packet.subarray(source + length, source + 2 * length), source);
  swapped.set(packet.subarray(source, source + length), source + length);
  swapped.set(packet.subarray(transport + 2, transport + 4), transport);
  swapped.set(packet.subarray(transport, transport + 2), transport + 2);
  return swapped;
}
