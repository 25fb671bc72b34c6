// `connect --via`: a laptop's connections leave from an agent's pod. The pod's loopback is this host's here.
import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { openLaptopSession } from "#daemon/link/laptop-session.ts";
import { openDetours } from "#daemon/detours.ts";
import { StreamOpener } from "#daemon/outbound/open-stream.ts";
import type { SessionNetwork } from "#daemon/session.ts";
import { networkVia, Via } from "#daemon/via.ts";
import type { TunnelSession, TunnelStream } from "#tunnel/tunnel.ts";
import { askAgent, namedServer, never } from "#test/flow/manager/harness.ts";
import { lab, noNetwork, stack, type Lab } from "./session-lab.ts";

async function openVia({ cluster }: Lab): Promise<Via> {
  const options = { access: cluster, workload: { name: "hello" }, namespace: "default" };
  return stack.use(await Via.open({ ...options, clock: systemClock, log: silentLogger }, () => undefined, never));
}
function dial(session: TunnelSession, port: number, address = "127.0.0.1"): Promise<TunnelStream> {
  return session.open({ kind: "tcp", target: { address, port } }, never);
}
async function say(session: TunnelSession, port: number, address?: string): Promise<string> {
  const stream = await dial(session, port, address);
  stream.end("hi");
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

describe("a way through a workload", () => {
  test("reaches what the pod reaches, its own loopback too", async () => {
    const all = await lab();
    const inPod = stack.use(await namedServer("in the pod"));
    const via = await openVia(all);
    expect(await say(via.session, inPod.port)).toBe("in the pod:hi");
    expect(via.workload.name).toBe("hello");
  });

  test("never reaches the agent's own ports, however they are written, nor the metadata of the cloud", async () => {
    const all = await lab();
    const { introductionPort, healthPort, agentPorts } = all.cluster.agents.get("hello-1")!;
    const { session } = await openVia(all);
    for (const port of [introductionPort, healthPort, ...agentPorts]) {
      await expect(dial(session, port)).rejects.toMatchObject({ code: "denied" });
      await expect(dial(session, port, "::ffff:127.0.0.1")).rejects.toMatchObject({ code: "denied" });
      await expect(dial(session, port, "127.1.2.3")).rejects.toMatchObject({ code: "denied" });
    }
    for (const address of ["169.254.169.254", "0.0.0.0", "224.0.0.1", "::ffff:169.254.169.254"]) {
      await expect(dial(session, 80, address)).rejects.toMatchObject({ code: "denied" });
    }
  });

  test("is refused to a session that has not asked for it, and to more than a few laptops", async () => {
    const all = await lab();
    const agent = all.cluster.agents.get("hello-1")!;
    const transport = connect({ port: agent.introductionPort, host: "127.0.0.1", noDelay: true });
    await once(transport, "connect");
    const stranger = await openLaptopSession(transport, { clock: systemClock, log: silentLogger }, never);
    await expect(dial(stranger, 80)).rejects.toMatchObject({ code: "denied" });
    stranger.destroy();
    await expect(askAgent(agent, (rpc) => rpc.call("dns.exchange", { message: "" }, never))).rejects.toMatchObject({
      code: "denied",
    });
    for (let laptop = 0; laptop < 8; laptop++) await openVia(all);
    await expect(askAgent(agent, (rpc) => rpc.call("dial.begin", {}, never))).rejects.toMatchObject({ code: "busy" });
  });

  // Story: the container was said to run, its agent did not listen yet, and `connect` failed.
  test("waits for an agent that is said to run and does not listen yet", async () => {
    const all = await lab();
    const open = all.cluster.openIntroduction.bind(all.cluster);
    let knocks = 0;
    all.cluster.openIntroduction = (...where) => {
      knocks += 1;
      if (knocks > 2) return open(...where);
      return Promise.reject(new AppError("link_lost", "nothing listens on that port in the pod"));
    };
    await openVia(all);
    expect(knocks).toBe(3);
  });

  test("is another pod's when the pod goes, and the network hears of it", async () => {
    const all = await lab(["hello-1"]);
    const via = await openVia(all);
    const seen: (TunnelSession | undefined)[] = [];
    const news = Promise.withResolvers<TunnelSession>();
    const lost = Promise.withResolvers<object>();
    const base = await (noNetwork as () => ReturnType<typeof noNetwork>)();
    const network: SessionNetwork = networkVia(
      {
        ...base,
        setSession: (session) => {
          seen.push(session);
          if (session === undefined) lost.resolve(network.status(never));
          if (seen.length > 2 && session !== undefined) news.resolve(session);
        },
      },
      via,
    );
    network.setSession(undefined); // of the link, which has no part in it
    expect(seen).toEqual([via.session]);
    expect(await network.status(never)).not.toHaveProperty("problem");
    const first = via.session;
    first.destroy();
    const next = await news.promise;
    expect(seen).toEqual([first, undefined, next]);
    expect(await lost.promise).toMatchObject({ problem: expect.stringMatching(/^connections leave through .*hello/) });
    await expect.poll(() => network.status(never)).not.toHaveProperty("problem");
    const inPod = stack.use(await namedServer("in the pod"));
    expect(await say(next, inPod.port)).toBe("in the pod:hi");
  });

  test("is taken for its subnets alone, one way for all of a workload's", async () => {
    const all = await lab();
    const inPod = stack.use(await namedServer("in the pod"));
    let opened = 0;
    const detours = await openDetours({
      wishes: ["127.0.0.0/8", "pods", "also"].map((subnet) => ({ subnet, workload: { name: "hello" } })),
      ranges: () => ({ services: ["10.96.0.0/16"], pods: ["10.244.0.0/16"], complete: true }),
      also: ["192.0.2.0/24"],
      open: () => {
        opened += 1;
        return openVia(all);
      },
    });
    expect(opened).toBe(1);
    const [detour] = detours;
    const covered = ["127.0.0.1", "10.244.7.1", "192.0.2.9", "10.96.0.10", "198.51.100.1", "::1"];
    expect(covered.map((address) => detour?.covers(address))).toEqual([true, true, true, false, false, false]);
    const opener = new StreamOpener(systemClock, detours);
    const stream = await opener.open({ kind: "tcp", target: { address: "127.0.0.1", port: inPod.port } }, never);
    stream.end("hi");
    expect(Buffer.concat(await stream.toArray()).toString()).toBe("in the pod:hi");

    const base = await (noNetwork as () => ReturnType<typeof noNetwork>)();
    const seen: unknown[] = [];
    const network = networkVia({ ...base, setSession: (session) => seen.push(session) }, undefined, [detour!.via]);
    network.setSession(undefined); // of the link, which all other addresses have
    expect(seen).toEqual([undefined]);
    detour!.via.session.destroy();
    await expect.poll(() => network.status(never)).toMatchObject({ problem: expect.stringContaining("hello") });
  });
});
