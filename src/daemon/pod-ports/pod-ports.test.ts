// Traps 55 (the original's `--to-pod` once bound 0.0.0.0) and 34 (half-close, early close). The pod is a server on
// another loopback address of this machine.
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { AppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import type { TunnelStream } from "#tunnel/tunnel.ts";
import { holdPodPorts, PodPorts, type PodDialer } from "./pod-ports.ts";

let stack = new AsyncDisposableStack();
afterEach(async () => {
  const ending = stack;
  stack = new AsyncDisposableStack();
  await ending.disposeAsync();
});

/** Below those that the system gives out: the same number has to be free on the laptop's loopback as well. */
let nextPort = 20_000 + (process.pid % 10_000);
async function listen(onSocket: (socket: Socket) => void, port = nextPort++, host = "127.0.0.2"): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    onSocket(socket);
  });
  server.listen(port, host);
  await once(server, "listening");
  stack.defer(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

/** As the port-forward is: whose end of writing ends the whole. */
async function dial(port: number): Promise<Duplex> {
  const socket = connect({ port, host: "127.0.0.2", allowHalfOpen: false });
  await once(socket, "connect");
  return socket;
}

interface Opened {
  readonly ports: PodPorts;
  readonly clock: FakeClock;
  readonly dialled: string[];
  pod: { name: string; ip?: string } | undefined;
}

async function open(port: number, protocol: "tcp" | "udp" = "tcp", dialer: Partial<PodDialer> = {}): Promise<Opened> {
  const clock = new FakeClock();
  const dialled: string[] = [];
  const own: PodDialer = {
    openPodPort: async (namespace, name, number) => {
      dialled.push(`${namespace}/${name}:${number}`);
      return await dial(number);
    },
    openUdp: () => Promise.reject(new AppError("unreachable", "not here")),
    ...dialer,
  };
  const ports = await PodPorts.open([{ port, protocol }], { dialer: own, clock, log: silentLogger });
  stack.use(ports);
  const opened: Opened = { ports, clock, dialled, pod: { name: "web-1", ip: "10.0.0.7" } };
  ports.lead({ namespace: "shop", pod: () => opened.pod });
  return opened;
}

const begin = (port: number): Socket => {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => undefined);
  stack.defer(() => void socket.destroy());
  return socket;
};
const reach = async (port: number): Promise<Socket> => {
  const socket = begin(port);
  await once(socket, "connect");
  return socket;
};
const closed = async (socket: Socket): Promise<string> => {
  const error = new Promise<string>((resolve) =>
    socket.once("error", (why: NodeJS.ErrnoException) => resolve(why.code ?? "")),
  );
  const ended = new Promise<string>((resolve) => socket.once("end", () => resolve("end")));
  socket.resume();
  return await Promise.race([error, ended]);
};

describe("a TCP port of the pod", () => {
  test("is on 127.0.0.1 alone, and leads to the pod that counts when a connection begins", async () => {
    const port = await listen((socket) => socket.end("hello"));
    const opened = await open(port);
    expect(await text(await reach(port))).toBe("hello");
    opened.pod = { name: "web-2" };
    expect(await text(await reach(port))).toBe("hello");
    expect(opened.dialled).toEqual([`shop/web-1:${port}`, `shop/web-2:${port}`]);
    const elsewhere = connect({ port, host: "127.0.0.3" });
    const [error] = (await once(elsewhere, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNREFUSED");
    opened.pod = undefined;
    expect(await closed(begin(port))).toBe("ECONNRESET");
  });
  test("carries ten megabytes both ways", async () => {
    const port = await listen((socket) => socket.pipe(socket));
    await open(port);
    const socket = await reach(port);
    const sent = Buffer.alloc(10 * 1024 * 1024, 7);
    socket.write(sent);
    let bytes = 0;
    for await (const chunk of socket) {
      bytes += (chunk as Buffer).length;
      if (bytes === sent.length) break;
    }
    expect(bytes).toBe(sent.length);
  });
  test("brings the answer to a program that has ended its sending, and lets go of a pod that has nothing more to say", async () => {
    let far: Socket | undefined;
    const port = await listen((socket) => (far = socket.resume()));
    const { clock } = await open(port);
    const socket = await reach(port);
    socket.end("request");
    await expect.poll(() => far?.bytesRead).toBe(7);
    far?.write("late answer");
    const [answer] = (await once(socket, "data")) as [Buffer];
    expect(answer.toString()).toBe("late answer");
    expect(far?.readableEnded).toBe(false); // the end cannot be told
    await clock.advance(30_000);
    await expect.poll(() => far?.readableEnded).toBe(true);
  });
  test("is reset when the pod resets, and when it does not listen", async () => {
    const port = await listen((socket) => socket.once("data", () => socket.resetAndDestroy()));
    await open(port);
    const socket = await reach(port);
    socket.write("x");
    expect(await closed(socket)).toBe("ECONNRESET");
    const free = await listen(() => undefined, nextPort++, "127.0.0.4");
    await open(free);
    expect(await closed(begin(free))).toBe("ECONNRESET");
  });
  test("ends the pod's connection when the program here is gone", async () => {
    let far: Socket | undefined;
    const port = await listen((socket) => (far = socket.resume()));
    await open(port);
    (await reach(port)).resetAndDestroy();
    await expect.poll(() => far?.readableEnded).toBe(true);
  });
  test("that is in use here is refused before anything is done, the others are given back", async () => {
    const taken = await listen(() => undefined, nextPort++, "127.0.0.1");
    const free = await listen(() => undefined);
    const dialer = { openPodPort: dial, openUdp: dial } as unknown as PodDialer;
    const options = { dialer, clock: new FakeClock(), log: silentLogger };
    let used = false;
    const wish = [free, taken].map((port) => ({ port, protocol: "tcp" as const }));
    const held = holdPodPorts(wish, options, async () => (used = true));
    await expect(held).rejects.toMatchObject({
      code: "port_in_use",
      message: `127.0.0.1:${taken}/TCP is in use by another program of this laptop`,
    });
    expect(used).toBe(false);
    await listen(() => undefined, free, "127.0.0.1");
  });
  test("of the traffic-agent is nobody's", async () => {
    await expect(open(24_899)).rejects.toThrow("port 24899 is the traffic-agent's own");
  });
  test("takes what is open with it when it ends", async () => {
    const port = await listen((socket) => socket.write("hello"));
    const { ports } = await open(port);
    const socket = await reach(port);
    await once(socket, "data");
    const end = closed(socket);
    await ports[Symbol.asyncDispose]();
    expect(await end).toBe("ECONNRESET");
    await expect(reach(port)).rejects.toThrow("ECONNREFUSED");
  });
});

/** Answers each datagram with the same. */
class EchoStream extends Duplex {
  #handler: (datagram: Uint8Array) => void = () => undefined;
  constructor() {
    super({ read: () => undefined, write: (_chunk, _encoding, done) => done() });
  }
  sendDatagram(datagram: Uint8Array): boolean {
    this.#handler(datagram);
    return true;
  }
  onDatagram(handler: (datagram: Uint8Array) => void): void {
    this.#handler = handler;
  }
}

describe("a UDP port of the pod", () => {
  const client = async (): Promise<UdpSocket> => {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    stack.defer(() => void socket.close());
    return socket;
  };
  test("has a flow to the pod's address for each sender, also for what comes before it stands", async () => {
    const probe = await client();
    const { port } = probe.address();
    await stack.disposeAsync();
    stack = new AsyncDisposableStack();
    const targets: unknown[] = [];
    const openUdp = (target: unknown): Promise<TunnelStream> => {
      targets.push(target);
      return Promise.resolve(new EchoStream() as unknown as TunnelStream);
    };
    await open(port, "udp", { openUdp });
    for (const sender of [await client(), await client()]) {
      const answers: string[] = [];
      sender.on("message", (datagram) => answers.push(datagram.toString()));
      for (const word of ["a", "b"]) sender.send(word, port, "127.0.0.1");
      await expect.poll(() => answers.toSorted()).toEqual(["a", "b"]);
    }
    expect(targets).toEqual(Array(2).fill({ address: "10.0.0.7", port }));
  });
});
