// What only many callers bring about in copies of datagrams; test/flow/manager/udp.test.ts has the rest.
import type { RemoteInfo } from "node:dgram";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { ServedIntercepts } from "#agent/served.ts";
import type { InboundOpener } from "#agent/served.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { UdpTaps } from "./tap-udp.ts";

const maxFlows = 1024;
const callerOf = (port: number): RemoteInfo => ({ address: "10.0.0.1", port, family: "IPv4", size: 1 });

test("a wiretap has copies of so many callers at once, and each that has no room is counted", async () => {
  const ports = { containerPort: 53, containerName: "app", protocol: "udp" } as const;
  const port: AgentPort = { ...ports, agentPort: 0, takeover: "name" };
  const served = new ServedIntercepts([port]);
  const counts = { opened: 0, copied: 0, cut: 0, closed: 0 };
  const opener: InboundOpener = {
    open: () => {
      counts.opened += 1;
      const stream = new PassThrough().once("close", () => (counts.closed += 1));
      const parts = { sendDatagram: () => true, onDatagram: () => undefined };
      return Promise.resolve(Object.assign(stream, parts) as unknown as TunnelStream);
    },
    countRefused: () => undefined,
    countCopy: (_id, why) => void (why === undefined ? (counts.copied += 1) : (counts.cut += 1)),
    hold: () => undefined,
  };
  const clock = new FakeClock();
  using taps = new UdpTaps({ port, served, podName: "hello-1", clock });
  const target = { ...ports, targetHost: "127.0.0.1", targetPort: 1 };
  served.set(opener, [{ id: "1", client: "ann@laptop", ports: [target], kind: "wiretap" }]);
  const send = (caller: number): void => taps.copy(Buffer.from("x"), callerOf(caller));

  for (let caller = 1; caller <= maxFlows + 10; caller += 1) send(caller);
  await expect.poll(() => counts).toEqual({ opened: maxFlows, copied: maxFlows, cut: 10, closed: 0 });
  send(1); // who was there first still is
  expect([counts.copied, counts.cut]).toEqual([maxFlows + 1, 10]);

  // Who is silent makes room.
  await clock.advance(50_000);
  send(1);
  await clock.advance(10_000);
  taps.sweep(60_000);
  send(5000);
  await expect.poll(() => counts.closed).toBe(maxFlows - 1);
  await expect.poll(() => counts.copied).toBe(maxFlows + 3);
  expect([counts.opened, counts.cut]).toEqual([maxFlows + 1, 10]);
});
