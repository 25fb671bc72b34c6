// The way of an intercepted connection with everything real but the programs: caller → agent ⇢ (pinned TLS) manager ⇢
// (TCP) laptop → process, all on loopback. What one end does the other must see, through every joint.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "#base/clock.ts";
import { isAppError, toAppError } from "#base/error.ts";
import { silentLogger } from "#base/log.ts";
import { connectPinned, createIdentity, listenPinned } from "#tunnel/identity.ts";
import { joinDuplex } from "#tunnel/pipe.ts";
import { openSession } from "#tunnel/session.ts";
import { resetReasonOf } from "#tunnel/stream.ts";
import type { IncomingStream, TunnelSession } from "#tunnel/tunnel.ts";
import { protocolVersions } from "#wire/hello.ts";
import type { Hello } from "#wire/hello.ts";
import type { OpenRequest } from "#wire/open.ts";
import { roundsOf } from "#base/rounds.fake.ts";

const host = "127.0.0.1";
const live = new AbortController().signal;
const inbound: OpenRequest = {
  kind: "inbound",
  protocol: "tcp",
  interceptId: "s:hello",
  containerPort: 8080,
  source: { address: "10.0.0.9", port: 40_000 },
  podName: "hello-1",
};

function session(transport: Socket, role: "opener" | "accepter", who: Hello["role"]): Promise<TunnelSession> {
  const hello: Hello = { protocol: protocolVersions, software: "0.1.0", role: who, features: [] };
  return openSession({ transport, role, hello, clock: systemClock, log: silentLogger, signal: live });
}

async function listen(onSocket: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, onSocket).listen(0, host);
  await once(server, "listening");
  return server;
}

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

async function dial(port: number): Promise<Socket> {
  const socket = connect({ host, port, allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  return socket;
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  await once(socket, "end");
  return Buffer.concat(chunks);
}

/** Opens the next hop for a stream that came in, and joins them. */
function relay(to: TunnelSession): (incoming: IncomingStream) => void {
  return (incoming) => {
    to.open(incoming.request, incoming.signal).then(
      (next) => joinDuplex(incoming.accept(), next),
      (error: unknown) => incoming.signal.aborted || incoming.reject(resetReasonOf(error), toAppError(error).message),
    );
  };
}

class Chain implements AsyncDisposable {
  readonly stack = new AsyncDisposableStack();
  readonly sessions: TunnelSession[] = [];
  /** Where callers connect. */
  port = 0;
  processPort = 0;
  laptopTransport: Socket | undefined;

  static async start(onProcess: (socket: Socket) => void): Promise<Chain> {
    const chain = new Chain();
    const process = await chain.#listen(onProcess);
    chain.processPort = portOf(process);
    const [laptop, managerOfLaptop] = await chain.#laptopLink();
    const [agent, managerOfAgent] = await chain.#agentLink();
    laptop.onIncoming((incoming) => {
      const socket = connect({ host, port: chain.processPort, allowHalfOpen: true, noDelay: true });
      socket.once("error", () => incoming.signal.aborted || incoming.reject("refused", "nobody listens"));
      socket.once("connect", () => joinDuplex(incoming.accept(), socket.removeAllListeners("error")));
    });
    managerOfAgent.onIncoming(relay(managerOfLaptop));
    const pod = await chain.#listen((caller) => {
      caller.on("error", () => undefined);
      agent.open(inbound, live).then(
        (stream) => joinDuplex(caller, stream),
        (error: unknown) => caller.end(isAppError(error) ? `passed: ${error.code}` : "bug"),
      );
    });
    chain.port = portOf(pod);
    return chain;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of this.sessions) one.destroy();
    await this.stack[Symbol.asyncDispose]();
  }

  async #listen(onSocket: (socket: Socket) => void): Promise<Server> {
    const open = new Set<Socket>();
    const server = await listen((socket) => {
      open.add(socket);
      socket.once("close", () => open.delete(socket));
      onSocket(socket);
    });
    this.stack.defer(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    return server;
  }

  async #laptopLink(): Promise<[TunnelSession, TunnelSession]> {
    const accepted = Promise.withResolvers<Socket>();
    const server = await this.#listen(accepted.resolve);
    this.laptopTransport = await dial(portOf(server));
    return this.#keep(
      session(this.laptopTransport, "opener", "laptop"),
      session(await accepted.promise, "accepter", "manager"),
    );
  }

  async #agentLink(): Promise<[TunnelSession, TunnelSession]> {
    const [manager, agent] = [createIdentity("manager"), createIdentity("agent")];
    const accepted = Promise.withResolvers<Socket>();
    const listener = this.stack.use(
      await listenPinned({
        identity: manager,
        host,
        port: 0,
        isTrusted: (fingerprint) => fingerprint === agent.fingerprint,
        onConnection: accepted.resolve,
        onStranger: () => undefined,
      }),
    );
    const { port } = listener;
    const { fingerprint } = manager;
    const socket = await connectPinned({ identity: agent, host, port, expectedFingerprint: fingerprint, signal: live });
    return this.#keep(session(socket, "opener", "agent"), session(await accepted.promise, "accepter", "manager"));
  }

  async #keep(...ends: [Promise<TunnelSession>, Promise<TunnelSession>]): Promise<[TunnelSession, TunnelSession]> {
    const both = await Promise.all(ends);
    this.sessions.push(...both);
    return both;
  }
}

describe("an intercepted connection", () => {
  let chain: Chain;
  let onProcess: (socket: Socket) => void;
  beforeEach(async () => {
    chain = await Chain.start((socket) => {
      socket.on("error", () => undefined);
      onProcess(socket);
    });
  });
  afterEach(async () => {
    await chain[Symbol.asyncDispose]();
  });

  test("carries megabytes both ways at once, unchanged", async () => {
    onProcess = (socket) => socket.pipe(socket);
    const sent = Buffer.from(Uint32Array.from({ length: 4 * 1024 * 1024 }, (_, index) => index * 2_654_435_761).buffer);
    const caller = await dial(chain.port);
    const got = readAll(caller);
    caller.end(sent);
    expect((await got).equals(sent)).toBe(true);
  });

  test("keeps half-close: the process answers after the caller has ended", async () => {
    onProcess = (socket) => void readAll(socket).then((request) => socket.end(`got ${request.length}`));
    const caller = await dial(chain.port);
    caller.end("request");
    expect((await readAll(caller)).toString()).toBe("got 7");
  });

  test("keeps half-close: the caller goes on after the process has ended", async () => {
    const received = Promise.withResolvers<Buffer>();
    onProcess = (socket) => {
      socket.end("greeting");
      received.resolve(readAll(socket));
    };
    const caller = await dial(chain.port);
    expect((await readAll(caller)).toString()).toBe("greeting");
    caller.end("still here");
    expect((await received.promise).toString()).toBe("still here");
  });

  test("passes the process's reset to the caller", async () => {
    onProcess = (socket) => socket.once("data", () => socket.resetAndDestroy());
    const caller = await dial(chain.port);
    caller.write("x");
    const [error] = (await once(caller, "error")) as [NodeJS.ErrnoException];
    expect(error.code).toBe("ECONNRESET");
  });

  test("passes the caller's reset to the process", async () => {
    const failed = Promise.withResolvers<NodeJS.ErrnoException>();
    onProcess = (socket) => socket.on("error", failed.resolve).resume();
    const caller = await dial(chain.port);
    await new Promise((resolve) => caller.write("x", resolve));
    caller.resetAndDestroy();
    expect((await failed.promise).code).toBe("ECONNRESET");
  });

  test("tells the agent when the process does not listen, so that the application gets the caller", async () => {
    chain.processPort = 1;
    const caller = await dial(chain.port);
    caller.write("request");
    expect((await readAll(caller)).toString()).toBe("passed: refused");
    caller.destroy();
  });

  test("ends at once when the laptop's link is cut, and the next caller is passed on", async () => {
    onProcess = (socket) => socket.write("hello");
    const caller = await dial(chain.port);
    await once(caller, "data");
    const failed = once(caller, "error");
    chain.laptopTransport?.resetAndDestroy();
    expect(((await failed)[0] as NodeJS.ErrnoException).code).toBe("ECONNRESET");
    const next = await dial(chain.port);
    expect((await readAll(next)).toString()).toBe("passed: link_lost");
    next.destroy();
  });

  const atOnce = roundsOf(150, 500);
  test(`carries ${atOnce} at once`, async () => {
    onProcess = (socket) => socket.pipe(socket);
    const answers = await Promise.all(
      Array.from({ length: atOnce }, async (_, index) => {
        const caller = await dial(chain.port);
        caller.end(`caller ${index}`);
        return (await readAll(caller)).toString();
      }),
    );
    expect(answers).toEqual(Array.from({ length: atOnce }, (_, index) => `caller ${index}`));
    for (const one of chain.sessions) expect(one.streamCount).toBe(0);
  });

  test("a caller that does not read brakes the process", async () => {
    const block = Buffer.alloc(64 * 1024);
    let written = 0;
    const stuck = Promise.withResolvers<void>();
    onProcess = (socket) => {
      const pump = (): void => {
        while (written < 512 * 1024 * 1024) {
          written += block.length;
          if (socket.write(block)) continue;
          // No room within this time means that everything on the way is full.
          const timer = systemClock.after(300, stuck.resolve);
          socket.once("drain", () => timer[Symbol.dispose]()).once("drain", pump);
          return;
        }
        stuck.reject(new Error("never braked"));
      };
      pump();
    };
    const caller = await dial(chain.port);
    caller.pause();
    await stuck.promise;
    expect(written).toBeLessThan(64 * 1024 * 1024); // what the kernel's socket buffers and the windows hold
    caller.destroy();
  });
});
