import { createSocket } from "node:dgram";
import { once } from "node:events";
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { silentLogger } from "#base/log.ts";
import type { IncomingStream, TunnelStream } from "#tunnel/tunnel.ts";
import { dialProcess, relayDatagrams } from "./dial-process.ts";

function incomingWith(accept: () => TunnelStream, reject: IncomingStream["reject"] = () => undefined): IncomingStream {
  return {
    request: {
      kind: "inbound",
      protocol: "udp",
      interceptId: "session:hello",
      containerPort: 53,
      source: { address: "10.0.0.9", port: 4000 },
      podName: "hello-1",
    },
    signal: new AbortController().signal,
    accept,
    reject,
  };
}

// A failed connect went for a connected one: the agent was told that the laptop has the flow, and it was lost.
test("a UDP flow whose process cannot be reached is rejected, so that the application gets it", async () => {
  const answered = Promise.withResolvers<string>();
  const accept = (): TunnelStream => {
    answered.resolve("accepted");
    throw new Error("accepted");
  };
  const incoming = incomingWith(accept, (reason) => answered.resolve(reason));
  // Broadcast needs a socket option that nobody sets, so the kernel refuses at once.
  const target = { containerPort: 53, protocol: "udp", targetHost: "255.255.255.255", targetPort: 53 } as const;
  void relayDatagrams(incoming, target, silentLogger);
  expect(await answered.promise).toBe("internal");
});

// The kernel tells a refusal once; it was dropped when the next datagram's send had it, and the agent waited in vain.
test.each(["127.0.0.1", "::1"])(
  "a UDP flow is told that its process on %s has gone, by whichever send",
  async (host) => {
    const gone = createSocket(host === "::1" ? "udp6" : "udp4").bind(0, host);
    await once(gone, "listening");
    const { port: targetPort } = gone.address();
    await new Promise<void>((resolve) => gone.close(() => resolve()));
    const accepted = Promise.withResolvers<void>();
    let deliver: (datagram: Uint8Array) => void = () => undefined;
    const stream = Object.assign(new PassThrough(), {
      sendDatagram: () => true,
      onDatagram: (handler: typeof deliver) => (deliver = handler),
    });
    const accept = (): TunnelStream => {
      accepted.resolve();
      return stream as unknown as TunnelStream;
    };
    const target = { containerPort: 53, protocol: "udp", targetHost: host, targetPort } as const;
    void relayDatagrams(incomingWith(accept), target, silentLogger);
    await accepted.promise;
    const told = once(stream, "error");
    const ended = new Promise<void>((resolve) => stream.once("close", () => resolve()));
    for (const text of ["1", "2"]) deliver(Buffer.from(text));
    expect(await told).toMatchObject([{ code: "ECONNREFUSED" }]);
    await ended;
    deliver(Buffer.from("late")); // its socket is closed
  },
);

// Those of a caller that a link held up come all at once: two of three were lost, or their answers.
test("a UDP flow's datagrams that come all at once are all answered", async () => {
  const process = createSocket("udp4").bind(0, "127.0.0.1");
  process.on("message", (datagram, from) => process.send(datagram, from.port, from.address));
  await once(process, "listening");
  const answers: string[] = [];
  const accepted = Promise.withResolvers<void>();
  let deliver: (datagram: Uint8Array) => void = () => undefined;
  const stream = Object.assign(new PassThrough(), {
    sendDatagram: (datagram: Uint8Array) => answers.push(datagram.toString()) > 0,
    onDatagram: (handler: typeof deliver) => {
      deliver = handler;
      accepted.resolve();
    },
  });
  const targetPort = process.address().port;
  const target = { containerPort: 53, protocol: "udp", targetHost: "127.0.0.1", targetPort } as const;
  void relayDatagrams(
    incomingWith(() => stream as unknown as TunnelStream),
    target,
    silentLogger,
  );
  await accepted.promise;
  const texts = Array.from({ length: 2000 }, (_, number) => `${number}`);
  for (const text of texts) deliver(Buffer.from(text));
  await expect.poll(() => answers.length).toBe(texts.length);
  for (const text of texts) deliver(Buffer.from(text)); // most of them wait when the flow ends
  stream.destroy();
  await new Promise<void>((resolve) => process.close(() => resolve()));
});

// `why` said "… did not take the connection: connect ECONNREFUSED" and the address a second time, for each request.
test("a connection that nothing takes is rejected in words for people", async () => {
  const said: string[] = [];
  const accept = (): TunnelStream => {
    throw new Error("accepted");
  };
  const incoming = incomingWith(accept, (...words) => void said.push(...words));
  const target = { containerPort: 80, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 1 } as const;
  await dialProcess(incoming, target, silentLogger, () => undefined);
  expect(said).toEqual(["refused", "127.0.0.1:1 on the laptop did not take the connection: nothing listens there"]);
});

// A socket of IPv4 was made for every name, so one that has IPv6 addresses only was refused for each datagram.
test.each([
  ["IPv6 alone", "::1", [{ address: "::1", family: 6 }]],
  [
    "both, where the process listens on IPv4",
    "127.0.0.1",
    [
      { address: "::1", family: 6 },
      { address: "127.0.0.1", family: 4 },
    ],
  ],
])("a UDP flow reaches a process whose name has addresses of %s", async (_what, listens, addresses) => {
  const process = createSocket(listens === "::1" ? "udp6" : "udp4").bind(0, listens);
  process.on("message", (datagram, from) => process.send(datagram, from.port, from.address));
  await once(process, "listening");
  const answered = Promise.withResolvers<string>();
  const stream = Object.assign(new PassThrough(), {
    sendDatagram: (datagram: Uint8Array) => (answered.resolve(datagram.toString()), true),
    onDatagram: (deliver: (datagram: Uint8Array) => void) => deliver(Buffer.from("hello")),
  });
  const accept = (): TunnelStream => stream as unknown as TunnelStream;
  const incoming = incomingWith(accept, (...words) => answered.resolve(words.join(" ")));
  const targetPort = process.address().port;
  const target = { containerPort: 53, protocol: "udp", targetHost: "process.example", targetPort } as const;
  await relayDatagrams(incoming, target, silentLogger, async () => addresses);
  expect(await answered.promise).toBe("hello");
  stream.destroy();
  await new Promise<void>((resolve) => process.close(() => resolve()));
});

test("a UDP flow whose process has a name that nobody knows is rejected", async () => {
  const said: string[] = [];
  const incoming = incomingWith(
    () => {
      throw new Error("accepted");
    },
    (...words) => void said.push(...words),
  );
  const target = { containerPort: 53, protocol: "udp", targetHost: "process.example", targetPort: 53 } as const;
  const unknown = Object.assign(new Error("getaddrinfo ENOTFOUND process.example"), { code: "ENOTFOUND" });
  await relayDatagrams(incoming, target, silentLogger, () => Promise.reject(unknown));
  expect(said).toEqual(["unreachable", "process.example:53 on the laptop: getaddrinfo ENOTFOUND process.example"]);
});
