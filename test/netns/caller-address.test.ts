// What the application sees of its callers while the agent passes their connections (DESIGN 15), in a real kernel.
//
//   callers 198.51.100.1, 203.0.113.7, 2001:db8:1::1 ───── veth ───── pod 198.51.100.2, 2001:db8:1::2: application, agent
//
// Stories: an agent that dials from the pod's own address makes every caller look local, which is an authentication
// by-pass; a caller's port used again collides in conntrack with the redirected connection itself; strict reverse path
// filters drop what comes from a stranger's address through loopback.
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { podCalls } from "./agent-pod.ts";
import type { applicationCalls } from "./caller-application.ts";
import type { strangerCalls } from "./caller-stranger.ts";
import { callProcess } from "./process-calls.ts";
import type { Remote } from "./process-calls.ts";

const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });
const podNet = `caller-pod-${process.pid}`;
const callerNet = `caller-${process.pid}`;
/**
 * Not those of the pod's own listeners on any free port: a caller with such a port is seen with another one. Among a
 * few thousand connections one would have it.
 */
const callersPorts = "10000 19999";
const podIps = ["198.51.100.2", "2001:db8:1::2"];
const v4 = { from: "198.51.100.1", to: "198.51.100.2" };
const routed = { from: "203.0.113.7", to: "198.51.100.2" };
const v6 = { from: "2001:db8:1::1", to: "2001:db8:1::2" };
const children: ChildProcess[] = [];

let pod: Remote<typeof podCalls>;
let podProcess: ChildProcess;
let application: Remote<typeof applicationCalls>;
let caller: Remote<typeof strangerCalls>;

function start(namespace: string, script: string, prefix: readonly string[] = []): ChildProcess {
  const program = [...prefix, process.execPath, join(import.meta.dirname, script)];
  const stdio = ["ignore", "inherit", "inherit", "ipc"] as const;
  const child = spawn("nsenter", [`--net=/run/netns/${namespace}`, ...program], { stdio: [...stdio] });
  children.push(child);
  return child;
}
async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await ended;
}
const inPod = (...command: string[]): string =>
  execFileSync("nsenter", [`--net=/run/netns/${podNet}`, ...command], { encoding: "utf8" });
/** For what the kernel or another process does in its own time; only a failure takes so long. */
const eventually = { interval: 20, timeout: 30_000 };

async function startPod(prefix: readonly string[] = []): Promise<void> {
  podProcess = start(podNet, "agent-pod.ts", prefix);
  pod = await callProcess<typeof podCalls>(podProcess);
}

beforeEach(async () => {
  ip("netns", "add", podNet);
  ip("netns", "add", callerNet);
  ip("-n", podNet, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", callerNet);
  for (const [namespace, address, address6] of [
    [podNet, "198.51.100.2/30", "2001:db8:1::2/64"],
    [callerNet, "198.51.100.1/30", "2001:db8:1::1/64"],
  ] as const) {
    ip("-n", namespace, "link", "set", "lo", "up");
    ip("-n", namespace, "addr", "add", address, "dev", "eth0");
    ip("-n", namespace, "addr", "add", address6, "dev", "eth0", "nodad");
    ip("-n", namespace, "link", "set", "eth0", "up");
  }
  ip("-n", callerNet, "addr", "add", "203.0.113.7/32", "dev", "lo");
  ip("netns", "exec", callerNet, "sysctl", "-wq", `net.ipv4.ip_local_port_range=${callersPorts}`);
  ip("-n", podNet, "route", "add", "default", "via", "198.51.100.1");
  ip("-n", podNet, "route", "add", "default", "via", "2001:db8:1::1");
  for (const device of ["all", "lo", "eth0"]) inPod("sysctl", "-wq", `net.ipv4.conf.${device}.rp_filter=1`);
  const others = [start(podNet, "caller-application.ts"), start(callerNet, "caller-stranger.ts")] as const;
  application = await callProcess<typeof applicationCalls>(others[0]);
  caller = await callProcess<typeof strangerCalls>(others[1]);
});
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child);
  for (const namespace of [podNet, callerNet]) ip("netns", "del", namespace);
});

describe("with NET_ADMIN", () => {
  beforeEach(async () => {
    await startPod();
    await application.listen("::", 8080);
    await pod.start({ agentOnly: true, podIps });
    await pod.refuse(true);
    await pod.attach();
  });

  test("the application sees its callers' addresses and ports, and status says so", async () => {
    expect(await pod.callerAddress()).toEqual({ kept: true, reason: "" });
    for (const way of [v4, routed, v6]) expect(await caller.misseen(way, 3)).toEqual([]);
    expect(inPod("nft", "list", "ruleset")).toContain("ct original zone set");
  });

  test("200 connections at once, and bulk both ways", async () => {
    expect(await caller.misseen(v4, 1)).toEqual([]);
    const before = await pod.descriptors();
    for (const way of [v4, v6]) expect(await caller.misseen(way, 200)).toEqual([]);
    expect(await caller.echo(v4, 20_000_000)).toBe(20_000_000);
    expect(await caller.echo(v6, 5_000_000)).toBe(5_000_000);
    await expect.poll(() => pod.descriptors(), eventually).toBeLessThanOrEqual(before);
  });

  test.each([
    ["IPv4", v4],
    ["IPv6", v6],
  ])("half-closes and resets pass over %s", async (_, way) => {
    expect(await caller.halfClose(way)).toBe("one\nend\n");
    expect(await caller.beReset(way)).toBe("ECONNRESET");
    await caller.reset(way);
    await expect.poll(() => application.resets(), eventually).toBe(1);
  });

  test("connections older than the attach, passed ones and those after the detach live side by side", async () => {
    await pod.detach();
    await caller.keep(v4, 20); // direct
    await pod.attach();
    await caller.keep(v4, 20); // passed
    await pod.detach();
    await caller.keep(v4, 20); // direct
    expect(await caller.misseen(v4, 100)).toEqual([]);
    expect(await caller.ask()).toEqual([]);
    await caller.release();
  });

  test("a port that comes again while our end lingers, and one that a listener of the pod has", async () => {
    ip("netns", "exec", callerNet, "sysctl", "-wq", "net.ipv4.tcp_tw_reuse=1");
    const again = await caller.fromOnePort(v4, 20_000);
    expect(again[0]).toBe("198.51.100.1 20000");
    expect(again[1]).toMatch(/^198\.51\.100\.1 /); // whether the port is given again is the kernel's business
    const [listened] = await caller.fromOnePort(v4, 9900);
    expect(listened).toMatch(/^198\.51\.100\.1 /);
    expect(listened).not.toBe("198.51.100.1 9900");
  });

  test("a killed agent leaves nothing that counts; the application serves, and the next agent finds its way", async () => {
    await caller.keep(v4, 5);
    await kill(podProcess);
    await caller.release();
    await expect.poll(() => inPod("nft", "list", "ruleset"), eventually).toBe("");
    for (const way of [v4, routed, v6]) expect(await caller.misseen(way, 20)).toEqual([]);
    await startPod();
    await pod.start({ agentOnly: true, podIps });
    await pod.refuse(true);
    await pod.attach();
    expect(await pod.callerAddress()).toEqual({ kept: true, reason: "" });
    for (const way of [v4, v6]) expect(await caller.misseen(way, 20)).toEqual([]);
  });

  test("an agent that ends in order takes its rules and routes away", async () => {
    expect(ip("-n", podNet, "rule")).toContain("fwmark");
    expect(ip("-n", podNet, "-6", "rule")).toContain("fwmark");
    await pod.endAgent();
    for (const family of ["-4", "-6"]) {
      expect(ip("-n", podNet, family, "rule")).not.toContain("fwmark");
      expect(ip("-n", podNet, family, "route", "show", "table", "all")).not.toContain("local default");
    }
    expect(inPod("nft", "list", "ruleset")).toBe("");
  });
});

test("an application on loopback alone is reached, from there", async () => {
  await startPod();
  await application.listen("127.0.0.1", 8080);
  await pod.start({ agentOnly: true, podIps });
  await pod.refuse(true);
  await pod.attach();
  expect(await caller.seenAs(v4)).toBe("127.0.0.1");
});

test("a kernel that cannot do it is told, and the pod's address used", async () => {
  ip("-n", podNet, "route", "del", "default"); // answers to a stranger have no way
  await startPod();
  await application.listen("::", 8080);
  await pod.start({ agentOnly: true, podIps });
  await pod.refuse(true);
  await pod.attach();
  expect(await pod.callerAddress()).toEqual({
    kept: false,
    reason: "a trial connection to 198.51.100.2 took longer than 1 s",
  });
  expect(await caller.seenAs(v4)).toBe("198.51.100.2");
  expect(ip("-n", podNet, "rule")).not.toContain("fwmark");
});
