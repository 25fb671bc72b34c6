// What only time brings about in flows of datagrams; test/flow/manager/udp.test.ts has the rest.
import { createSocket } from "node:dgram";
import type { RemoteInfo, Socket } from "node:dgram";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { Decisions } from "#agent/decisions.ts";
import { ServedIntercepts } from "#agent/served.ts";
import type { InboundOpener } from "#agent/served.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import type { AgentPort } from "#wire/agent-api.ts";
import { UdpCapture } from "./capture-udp.ts";

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

async function udpEnd(): Promise<Socket> {
  const socket = createSocket("udp4").bind(0, "127.0.0.1");
  await once(socket, "listening");
  stack.defer(() => new Promise<void>((resolve) => socket.close(() => resolve())));
  return socket;
}
const heard = (socket: Socket): Promise<[Buffer, RemoteInfo]> =>
  once(socket, "message") as Promise<[Buffer, RemoteInfo]>;

/** An application that answers by the test's hand, and a laptop whose process refuses every datagram. */
async function refusing() {
  const app = await udpEnd();
  const port = { containerPort: app.address().port, containerName: "app", protocol: "udp" } as const;
  const agentPort: AgentPort = { ...port, agentPort: 0, takeover: "name" };
  const served = new ServedIntercepts([agentPort]);
  let opened = 0;
  const opener: InboundOpener = {
    open: async () => {
      opened += 1;
      const stream = new PassThrough();
      const sendDatagram = (): boolean => {
        stream.destroy(new AppError("refused", "no process"));
        return true;
      };
      return Object.assign(stream, { sendDatagram, onDatagram: () => undefined }) as unknown as TunnelStream;
    },
    countRefused: () => undefined,
    countCopy: () => undefined,
    hold: () => undefined,
  };
  const clock = new FakeClock();
  stack.defer(() => expect(clock.pending).toBe(0));
  const options = { served, podName: "hello-1", podIps: ["127.0.0.1"], clock, log: silentLogger };
  const capture = stack.use(await UdpCapture.listen({ ...options, port: agentPort, decisions: new Decisions(clock) }));
  const target = { ...port, targetHost: "127.0.0.1", targetPort: 1 };
  const set = (): unknown => served.set(opener, [{ id: "1", client: "ann@laptop", ports: [target] }]);
  set();
  return { app, capture, clock, set, opened: () => opened };
}

describe("a flow that the laptop's process has refused", () => {
  // Whoever asks twice at once, as resolvers do, lost the first answer when the second datagram came behind the moment.
  test("still gets the application's answer when the process is asked again", async () => {
    const { app, capture, clock, opened } = await refusing();
    const caller = await udpEnd();
    const first = heard(app);
    caller.send("1", capture.port, "127.0.0.1");
    const [, from] = await first;
    await clock.advance(2000);
    const second = heard(app);
    caller.send("2", capture.port, "127.0.0.1");
    expect(String((await second)[0])).toBe("2");
    expect(opened()).toBe(2);
    const answer = heard(caller);
    app.send("answer 1", from.port, from.address);
    expect(String((await answer)[0])).toBe("answer 1");
  });

  test("has the process not asked for each caller because another intercept has changed", async () => {
    const { app, capture, set, opened } = await refusing();
    const callers = [await udpEnd(), await udpEnd()];
    for (const [index, caller] of callers.entries()) {
      const arrived = heard(app);
      caller.send(`${index}`, capture.port, "127.0.0.1");
      expect(String((await arrived)[0])).toBe(`${index}`);
      set();
    }
    expect(opened()).toBe(1);
  });
});
