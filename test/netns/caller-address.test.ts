// What the application sees of its callers while the agent passes their connections (DESIGN 15), in a real kernel.
//
//   callers 198.51.100.1, 203.0.113.7, 2001:db8:1::1 ───── veth ───── pod 198.51.100.2, 2001:db8:1::2: application, agent
//
// Stories: an agent that dials from the pod's own address makes every caller look local, which is an authentication
// by-pass; a caller's port used again collides in conntrack with the redirected connection itself; strict reverse path
// filters drop what comes from a stranger's address through loopback.
import type { ChildProcess } from "node:child_process";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { podCalls } from "./agent-pod.ts";
import type { applicationCalls } from "./caller-application.ts";
import type { strangerCalls } from "./caller-stranger.ts";
import { ip, kill, PodNetwork } from "./pod-network.ts";
import { callProcess } from "./process-calls.ts";
import type { Remote } from "./process-calls.ts";

const network = new PodNetwork("caller");
/**
 * Not those of the pod's own listeners on any free port: a caller with such a port is seen with another one. Among a
 * few thousand connections one would have it.
 */
const callersPorts = "10000 19999";
const podIps = ["198.51.100.2", "2001:db8:1::2"];
const v4 = { from: "198.51.100.1", to: "198.51.100.2" };
const routed = { from: "203.0.113.7", to: "198.51.100.2" };
const v6 = { from: "2001:db8:1::1", to: "2001:db8:1::2" };

let pod: Remote<typeof podCalls>;
let podProcess: ChildProcess;
let application: Remote<typeof applicationCalls>;
let caller: Remote<typeof strangerCalls>;

/** For what the kernel or another process does in its own time; only a failure takes so long. */
const eventually = { interval: 20, timeout: 30_000 };

async function startPod(prefix: readonly string[] = []): Promise<void> {
  podProcess = network.start("pod", "agent-pod.ts", prefix);
  pod = await callProcess<typeof podCalls>(podProcess);
}

beforeEach(async () => {
  network.open();
  ip("-n", network.callers, "addr", "add", "203.0.113.7/32", "dev", "lo");
  ip("netns", "exec", network.callers, "sysctl", "-wq", `net.ipv4.ip_local_port_range=${callersPorts}`);
  for (const device of ["all", "lo", "eth0"]) network.inPod("sysctl", "-wq", `net.ipv4.conf.${device}.rp_filter=1`);
  const others = [
    network.start("pod", "caller-application.ts"),
    network.start("callers", "caller-stranger.ts"),
  ] as const;
  application = await callProcess<typeof applicationCalls>(others[0]);
  caller = await callProcess<typeof strangerCalls>(others[1]);
});
afterEach(() => network.close());

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
    expect(network.ruleset()).toContain("ct original zone set");
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
    ip("netns", "exec", network.callers, "sysctl", "-wq", "net.ipv4.tcp_tw_reuse=1");
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
    await expect.poll(() => network.ruleset(), eventually).toBe("");
    for (const way of [v4, routed, v6]) expect(await caller.misseen(way, 20)).toEqual([]);
    await startPod();
    await pod.start({ agentOnly: true, podIps });
    await pod.refuse(true);
    await pod.attach();
    expect(await pod.callerAddress()).toEqual({ kept: true, reason: "" });
    for (const way of [v4, v6]) expect(await caller.misseen(way, 20)).toEqual([]);
  });

  test("an agent that ends in order takes its rules and routes away", async () => {
    expect(ip("-n", network.pod, "rule")).toContain("fwmark");
    expect(ip("-n", network.pod, "-6", "rule")).toContain("fwmark");
    await pod.endAgent();
    for (const family of ["-4", "-6"]) {
      expect(ip("-n", network.pod, family, "rule")).not.toContain("fwmark");
      expect(ip("-n", network.pod, family, "route", "show", "table", "all")).not.toContain("local default");
    }
    expect(network.ruleset()).toBe("");
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
  ip("-n", network.pod, "route", "del", "default"); // answers to a stranger have no way
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
  expect(ip("-n", network.pod, "rule")).not.toContain("fwmark");
});
