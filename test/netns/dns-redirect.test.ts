// The nft hook with real look-ups (laptop.ts draws the network): what programs ask the nameservers comes to us, what
// we ask them ourselves does not.
//
// Story: a fallback resolver that asked the nameservers through its own redirect asked itself for ever (trap 6).
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { Helper, HelperDoor } from "#daemon/helper-client.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import { Laptop, nameservers } from "./laptop.ts";
import type { HelperProcess } from "./laptop.ts";

const outside = "198.51.100.1";
const ours = "10.96.0.7";
const ourPort = 5353;
const upstreamPort = 40_000;

let laptop: Laptop;
let door: HelperDoor;
let helper: Helper;
let helperProcess: HelperProcess;
let device: PacketDevice;

beforeEach(async () => {
  laptop = new Laptop();
  await laptop.fixture("lan", "dns-server.ts", [outside, "53", ...nameservers]);
  await laptop.fixture("laptop", "dns-server.ts", [ours, String(ourPort), "127.0.0.1", "::1"]);
  const path = `${laptop.directory}/helper.sock`;
  door = await openHelperDoor({ path, clock: systemClock, log: silentLogger });
  helperProcess = await laptop.startHelper(path);
  helper = await door.wait(new AbortController().signal);
  ({ device } = await helper.openDevice({ addresses: ["246.246.0.1/29"], mtu: 1500 }));
});
afterEach(async () => {
  device.close();
  await door[Symbol.asyncDispose]();
  await laptop[Symbol.asyncDispose]();
});

const hook = {
  mode: "nft" as const,
  port: ourPort,
  nameservers: [...nameservers],
  upstreamSourcePorts: [upstreamPort],
};

describe("redirected look-ups", () => {
  test.each([
    ["UDP", "192.0.2.53", []],
    ["TCP", "192.0.2.53", ["+tcp"]],
    ["UDP on IPv6", "2001:db8:2::53", []],
    ["TCP on IPv6", "2001:db8:2::53", ["+tcp"]],
  ])("come to us by %s, our own go out, and unhooking ends it", async (_, server, options) => {
    expect(lookUp(server, options)).toBe(outside);
    await helper.hookDns(hook);
    expect(lookUp(server, options)).toBe(ours);
    const from = server.includes(":") ? `::#${upstreamPort}` : `0.0.0.0#${upstreamPort}`;
    expect(lookUp(server, [...options, "-b", from])).toBe(outside);
    await helper.unhookDns();
    expect(lookUp(server, options)).toBe(outside);
  });

  test("a hook takes the place of another without a gap, and keeps to the nameservers named", async () => {
    await helper.hookDns(hook);
    await helper.hookDns({ ...hook, nameservers: ["2001:db8:2::53"] });
    expect(lookUp("192.0.2.53", [])).toBe(outside);
    expect(lookUp("2001:db8:2::53", [])).toBe(ours);
  });

  // Story: with Docker's or a firewall's NAT beside, a flow keeps its way for as long as it is used. A program that asks
  // from one port again did not find the cluster, and after `quit` asked a port where nobody was.
  test.each([
    ["192.0.2.53", "0.0.0.0"],
    ["2001:db8:2::53", "::"],
  ])("a program that always asks %s from the same port follows the hook at once", async (server, any) => {
    const chain = "add table inet other; add chain inet other c { type nat hook postrouting priority 100; }";
    laptop.run(["nft", `${chain}; add rule inet other c ip saddr 172.17.0.0/16 masquerade`]);
    const options = ["-b", `${any}#40100`];
    expect(lookUp(server, options)).toBe(outside);
    await helper.hookDns(hook);
    expect(lookUp(server, options)).toBe(ours);
    await helper.unhookDns();
    expect(lookUp(server, options)).toBe(outside);
  });

  test("killing the helper ends the redirect at once", async () => {
    await helper.hookDns(hook);
    const lost = new Promise((resolve) => helper.onLost(resolve));
    helperProcess.child.kill("SIGKILL");
    await helperProcess.ended;
    expect(lookUp("192.0.2.53", [])).toBe(outside);
    await lost;
  });

  test("a nameserver that is none is refused, and nothing is hooked", async () => {
    await expect(helper.hookDns({ ...hook, nameservers: ["resolver"] })).rejects.toThrow("is no nameserver's address");
    // What everybody on this machine asks others than its nameservers is nobody's to redirect.
    await expect(helper.hookDns({ ...hook, nameservers: ["192.0.2.99"] })).rejects.toThrow(
      "192.0.2.99 is no nameserver of this laptop",
    );
    expect(laptop.run(["nft", "list", "ruleset"])).toBe("");
  });
});

function lookUp(server: string, options: readonly string[]): string {
  return laptop.run(["dig", "+short", "+tries=1", "+time=2", `@${server}`, ...options, "hello.example"]).trim();
}
