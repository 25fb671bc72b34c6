// The nft hook with real look-ups (laptop.ts draws the network): what programs ask the nameservers comes to us, what
// we ask them ourselves does not.
//
// Story: a fallback resolver that asked the nameservers through its own redirect asked itself for ever (trap 6).
//
// Two connections: program → slot 1's DNS server → slot 0's → nameservers, each forwarding what is not its own.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { silentLogger } from "#base/log.ts";
import { openHelperDoor } from "#daemon/helper-client.ts";
import type { Helper, HelperDoor } from "#daemon/helper-client.ts";
import type { PacketDevice } from "#kernel/packet-device.ts";
import { gateway, Laptop, nameservers } from "./laptop.ts";
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

  // A VPN's or a CNI's rules lead packets by their mark. A port that is bound for UDP may be any program's for TCP.
  test("what we forward has its mark but for our bits, and what else leaves from such a port has all of it", async () => {
    const early = "chain early { type filter hook output priority -160; meta mark set 0x12345c0f; }";
    const count = (name: string, port: number, mark: string): string =>
      `tcp sport ${upstreamPort} tcp dport ${port} meta mark ${mark} counter name ${name}`;
    const rules = `${count("forwarded", 53, "0x12345c1f")}; ${count("other", 80, "0x12345c0f")};`;
    const late = `chain late { type filter hook output priority -140; ${rules} }`;
    laptop.run(["nft", `table inet watch { counter forwarded {}; counter other {}; ${early}; ${late}; }`]);
    await helper.hookDns(hook);
    const from = ["-b", `0.0.0.0#${upstreamPort}`, "+tcp"];
    expect(lookUp("192.0.2.53", from)).toBe(outside);
    laptop.run(["sh", "-c", `dig +tries=1 +time=1 -p 80 @${gateway} ${from.join(" ")} hello.example || true`]);
    for (const name of ["forwarded", "other"]) {
      expect(laptop.run(["nft", "list", "counter", "inet", "watch", name])).toMatch(/packets [1-9]/);
    }
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

describe("two connections", () => {
  const secondPort = 5354;
  const secondUpstream = 41_000;
  const secondPast = 42_000;
  const theirs = "10.97.0.7";
  let secondDoor: HelperDoor;
  let second: Helper;
  let secondProcess: HelperProcess;
  let secondDevice: PacketDevice;

  beforeEach(async () => {
    await laptop.fixture("laptop", "dns-server.ts", [theirs, String(secondPort), "127.0.0.1", "::1"]);
    const path = `${laptop.directory}/second.sock`;
    secondDoor = await openHelperDoor({ path, clock: systemClock, log: silentLogger });
    secondProcess = await laptop.startHelper(path);
    second = await secondDoor.wait(new AbortController().signal);
    ({ device: secondDevice } = await second.openDevice({ slot: 1, addresses: ["246.246.0.9/29"], mtu: 1500 }));
    await helper.hookDns(hook);
    const own = { upstreamSourcePorts: [secondUpstream], pastOthersSourcePorts: [secondPast] };
    await second.hookDns({ ...hook, port: secondPort, ...own });
  });
  afterEach(async () => {
    secondDevice.close();
    await secondDoor[Symbol.asyncDispose]();
  });

  const from = (server: string, port: number): readonly string[] => [
    "-b",
    server.includes(":") ? `::#${port}` : `0.0.0.0#${port}`,
  ];

  test.each([
    ["UDP", "192.0.2.53", []],
    ["TCP", "192.0.2.53", ["+tcp"]],
    ["UDP on IPv6", "2001:db8:2::53", []],
    ["TCP on IPv6", "2001:db8:2::53", ["+tcp"]],
  ])("are asked one after the other by %s, then the nameserver", async (_, server, options) => {
    expect(lookUp(server, options)).toBe(theirs);
    expect(lookUp(server, [...options, ...from(server, secondUpstream)])).toBe(ours);
    expect(lookUp(server, [...options, ...from(server, upstreamPort)])).toBe(outside);
    expect(lookUp(server, [...options, ...from(server, secondPast)])).toBe(outside);
  });

  // What a daemon forwards leaves from a few ports for good, and the kernel keeps a flow's way while it is used.
  test.each(["192.0.2.53", "2001:db8:2::53"])("go on without the one whose helper is killed, on %s", async (server) => {
    const program = from(server, 40_100);
    expect(lookUp(server, program)).toBe(theirs);
    expect(lookUp(server, from(server, secondUpstream))).toBe(ours);
    helperProcess.child.kill("SIGKILL");
    await helperProcess.ended;
    device.close(); // as the daemon does when it hears of it
    await expect.poll(() => lookUp(server, from(server, secondUpstream)), { timeout: 10_000 }).toBe(outside);
    expect(lookUp(server, program)).toBe(theirs);
  });

  test("go on without the later one when its helper is killed, and leave nothing", async () => {
    const program = from("192.0.2.53", 40_100);
    expect(lookUp("192.0.2.53", program)).toBe(theirs);
    secondProcess.child.kill("SIGKILL");
    await secondProcess.ended;
    secondDevice.close();
    await expect.poll(() => lookUp("192.0.2.53", program), { timeout: 10_000 }).toBe(ours);
    expect(laptop.run(["nft", "list", "tables"])).toBe("table inet telepresence-0\n");
    await helper.unhookDns();
    expect(laptop.run(["nft", "list", "ruleset"])).toBe("");
  });
});

function lookUp(server: string, options: readonly string[]): string {
  return laptop.run(["dig", "+short", "+tries=1", "+time=2", `@${server}`, ...options, "hello.example"]).trim();
}
