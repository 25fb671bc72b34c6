// What only time brings about in flows of datagrams; test/flow/manager/udp.test.ts has the rest.
import { createSocket } from "node:dgram";
import type { RemoteInfo, Socket } from "node:dgram";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { raceSignal } from "#base/abort.ts";
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

/** A laptop whose process refuses every datagram. */
const refuse = (): TunnelStream => {
  const stream = new PassThrough();
  const sendDatagram = (): boolean => {
    stream.destroy(new AppError("refused", "no process"));
    return true;
  };
  return Object.assign(stream, { sendDatagram, onDatagram: () => undefined }) as unknown as TunnelStream;
};

/** An application that answers by the test's hand, and a laptop that takes flows as `open` has it. */
async function lab(
  open: (signal: AbortSignal) => TunnelStream | Promise<TunnelStream>,
  onRefused: "app" | "fail" = "app",
) {
  const app = await udpEnd();
  const port = { containerPort: app.address().port, containerName: "app", protocol: "udp" } as const;
  const agentPort: AgentPort = { ...port, agentPort: 0, takeover: "name" };
  const served = new ServedIntercepts([agentPort]);
  let opened = 0;
  const opener: InboundOpener = {
    open: async (_request, signal) => {
      opened += 1;
      return await open(signal);
    },
    countRefused: () => undefined,
    countCopy: () => undefined,
    hold: () => undefined,
  };
  const clock = new FakeClock();
  stack.defer(() => expect(clock.pending).toBe(0));
  const options = { served, podName: "hello-1", podIps: ["127.0.0.1"], clock, log: silentLogger };
  const decisions = new Decisions(clock);
  const capture = stack.use(await UdpCapture.listen({ ...options, port: agentPort, decisions }));
  const target = { ...port, targetHost: "127.0.0.1", targetPort: 1 };
  const set = (): unknown => served.set(opener, [{ id: "1", client: "ann@laptop", ports: [target], onRefused }]);
  set();
  return { app, capture, clock, decisions, set, opened: () => opened };
}

describe("a flow that the laptop's process has refused", () => {
  // Whoever asks twice at once, as resolvers do, lost the first answer when the second datagram came behind the moment.
  test("still gets the application's answer when the process is asked again", async () => {
    const { app, capture, clock, opened } = await lab(refuse);
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
    const { app, capture, set, opened } = await lab(refuse);
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

// A caller that keeps its port, as collectors of metrics do, stayed with the application for as long as it sent.
describe("a flow that the laptop does not take", () => {
  /** Takes flows once the test says so. */
  const later = () => {
    const got: string[] = [];
    const laptop = { there: false, error: new AppError("unreachable", "no route to the process"), got };
    const open = (): TunnelStream => {
      if (!laptop.there) throw laptop.error;
      const sendDatagram = (datagram: Uint8Array): boolean => got.push(Buffer.from(datagram).toString()) > 0;
      const stream = Object.assign(new PassThrough(), { sendDatagram, onDatagram: () => undefined });
      return stream as unknown as TunnelStream;
    };
    return { laptop, open };
  };

  test("goes to the application, and is asked for again while its caller goes on", async () => {
    const { laptop, open } = later();
    const { app, capture, clock, opened } = await lab(open);
    const caller = await udpEnd();
    for (const text of ["1", "2"]) {
      const arrived = heard(app);
      caller.send(text, capture.port, "127.0.0.1");
      expect(String((await arrived)[0])).toBe(text);
    }
    expect(opened()).toBe(1);
    laptop.there = true;
    await clock.advance(2000);
    caller.send("3", capture.port, "127.0.0.1");
    await expect.poll(() => laptop.got).toEqual(["3"]);
  });

  // Thousands of callers that keep their ports had the laptop asked, and a line logged, by each of them every two seconds.
  test("is not asked for by each of many callers", async () => {
    const { laptop, open } = later();
    const { app, capture, clock, decisions, opened } = await lab(open);
    const callers = [await udpEnd(), await udpEnd(), await udpEnd()];
    const sendAll = async (): Promise<void> => {
      for (const [index, caller] of callers.entries()) {
        const arrived = heard(app);
        caller.send(`${index}`, capture.port, "127.0.0.1");
        expect(String((await arrived)[0])).toBe(`${index}`);
      }
    };
    await sendAll();
    expect(opened()).toBe(1);
    expect(decisions.last(3).map(({ left }) => left)).toEqual(Array(3).fill(laptop.error.message));
    await clock.advance(2000);
    await sendAll();
    expect(opened()).toBe(2);
  });

  test("is asked for the more rarely, the longer its laptop takes to say nothing", async () => {
    const { app, capture, clock, opened } = await lab((signal) =>
      raceSignal(new Promise<TunnelStream>(() => undefined), signal),
    );
    const caller = await udpEnd();
    const first = heard(app);
    caller.send("1", capture.port, "127.0.0.1");
    await expect.poll(opened).toBe(1);
    await clock.advance(5000); // what a caller waits at most
    expect(String((await first)[0])).toBe("1");
    for (const [afterMs, times] of [
      [19_000, 1],
      [1000, 2],
    ] as const) {
      await clock.advance(afterMs);
      const second = times === 1 ? heard(app) : undefined;
      caller.send("2", capture.port, "127.0.0.1");
      await second;
      await expect.poll(opened).toBe(times);
    }
  });

  test("is cut where its callers are to see that nobody listens", async () => {
    const { laptop, open } = later();
    laptop.error = new AppError("refused", "nobody listens");
    const { app, capture, decisions, opened } = await lab(open, "fail");
    const atApplication: string[] = [];
    app.on("message", (datagram) => atApplication.push(datagram.toString()));
    const caller = await udpEnd();
    for (const times of [1, 2]) {
      caller.send(`${times}`, capture.port, "127.0.0.1");
      await expect.poll(opened).toBe(times);
    }
    laptop.there = true;
    caller.send("3", capture.port, "127.0.0.1");
    await expect.poll(() => laptop.got).toEqual(["3"]);
    expect(atApplication).toEqual([]);
    expect(decisions.last(9).map(({ failure }) => failure)).toEqual(["nobody listens", "nobody listens", undefined]);
  });
});
