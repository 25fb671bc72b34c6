// A program on the laptop, as a process of its own in the lab's namespace: it knows nothing of Telepresence.
import { createHash } from "node:crypto";
import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { carryEcho, connectEcho } from "#egress/echo.ts";
import { answerCalls } from "./process-calls.ts";

const open = new Map<number, { readonly socket: Socket; readonly errors: string[] }>();
/** Those of `openMany`, and how they ended. */
const many = new Set<Socket>();
const ends: string[] = [];
let lastHandle = 0;

const digest = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);

interface Target {
  readonly host: string;
  readonly port: number;
  readonly localPort?: number;
  readonly localAddress?: string;
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function dial(target: Target): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...target, allowHalfOpen: true });
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

function flood(socket: Socket, chunk: Buffer): void {
  const push = (): void => {
    while (!socket.destroyed && socket.write(chunk));
  };
  socket.on("drain", push);
  push();
}

/** chosen: whoever is asked answers in a few milliseconds, or a second on a machine that does much else. */
const lostMs = 2000;

/** Whether a datagram comes before those that are under way count as lost. */
function comes(socket: UdpSocket): Promise<boolean> {
  return once(socket, "message", { signal: AbortSignal.timeout(lostMs) }).then(
    () => true,
    () => false,
  );
}

const handlers = {
  /** `connected` or the error's code, and how long that took; `nothing` when the limit passes first. */
  attempt: async (target: Target, limitMs: number): Promise<{ outcome: string; ms: number }> => {
    const started = performance.now();
    const limit = AbortSignal.timeout(limitMs);
    const late = once(limit, "abort").then(() => "nothing");
    const dialled = dial(target).then(
      (socket) => {
        socket.on("error", () => undefined);
        socket.destroy();
        return "connected";
      },
      (error: unknown) => codeOf(error),
    );
    return { outcome: await Promise.race([dialled, late]), ms: performance.now() - started };
  },
  /** Sends `bytes` bytes of a pattern, ends its half, and answers what came back until the other end. */
  exchange: async (target: Target, bytes: number): Promise<{ length: number; digest: string; sent: string }> => {
    const payload = Buffer.alloc(bytes, "telepresence?");
    const socket = await dial(target);
    socket.end(payload);
    const received = await readAll(socket);
    return { length: received.length, digest: digest(received), sent: digest(payload) };
  },
  /** Reads to the other end's end first, then sends. */
  readThenSend: async (target: Target, bytes: number): Promise<{ length: number; digest: string }> => {
    const socket = await dial(target);
    const received = await readAll(socket);
    socket.end(Buffer.alloc(bytes));
    await once(socket, "close");
    return { length: received.length, digest: digest(received) };
  },
  echoMany: async (target: Target, count: number): Promise<number> => {
    const one = async (index: number): Promise<boolean> => {
      const socket = await dial(target);
      const payload = Buffer.from(`connection ${index} `.repeat(100));
      socket.end(payload);
      return payload.equals(await readAll(socket));
    };
    return (await Promise.all(Array.from({ length: count }, (_, index) => one(index)))).filter(Boolean).length;
  },
  open: async (target: Target): Promise<number> => {
    const socket = await dial(target);
    const errors: string[] = [];
    socket.on("error", (error) => errors.push(codeOf(error)));
    open.set(++lastHandle, { socket, errors });
    return lastHandle;
  },
  /** So many more connections; how they ended is `ends`. Nothing is read but what a socket takes by itself. */
  openMany: async (target: Target, count: number): Promise<void> => {
    for (let left = count; left > 0; left -= 100) {
      const dialled = await Promise.all(Array.from({ length: Math.min(left, 100) }, () => dial(target)));
      for (const socket of dialled) {
        let end = "closed";
        socket.on("error", (error) => (end = codeOf(error)));
        socket.once("close", () => ends.push(end));
        many.add(socket);
      }
    }
  },
  /** What all of `openMany` do from now on. */
  all: (deed: "read" | "flood" | "end" | "write"): void => {
    const chunk = Buffer.alloc(64 * 1024);
    for (const socket of many) {
      if (deed === "read") socket.resume();
      else if (deed === "end") socket.end();
      else if (deed === "write") socket.write("x");
      else flood(socket, chunk);
    }
  },
  /** Of how many connections of `openMany` the far end has ended its half, and all was read. */
  ended: (): number => [...many].filter((socket) => socket.readableEnded).length,
  /** How connections of `openMany` ended so far: error codes, or `closed`, and how many of each. */
  ends: (): Record<string, number> =>
    Object.fromEntries([...new Set(ends)].map((code) => [code, ends.filter((end) => end === code).length])),
  write: (handle: number, text: string): void => void open.get(handle)?.socket.write(text),
  reset: (handle: number): void => void open.get(handle)?.socket.resetAndDestroy(),
  /** Reads until so many bytes came. */
  readSome: async (handle: number, bytes: number): Promise<number> => {
    const socket = open.get(handle)?.socket;
    let count = 0;
    while (socket !== undefined && count < bytes) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) await once(socket, "readable");
      else count += chunk.length;
    }
    return count;
  },
  /** How the connection ended: the error's code, or `closed`. */
  waitForEnd: async (handle: number): Promise<string> => {
    const entry = open.get(handle);
    if (entry === undefined) return "unknown";
    entry.socket.resume();
    if (!entry.socket.closed) await new Promise((resolve) => entry.socket.once("close", resolve));
    return entry.errors[0] ?? "closed";
  },
  /** Sends something: what came until the connection ended, and how that ended. */
  ask: async (target: Target): Promise<string> => {
    const socket = await dial(target);
    const said: string[] = [];
    socket.on("data", (bytes: Buffer) => said.push(bytes.toString()));
    socket.on("error", (error) => said.push(codeOf(error)));
    socket.write("may I?");
    await new Promise((resolve) => socket.once("close", resolve));
    return said.join(", ");
  },
  /** Sends datagrams from one connected socket; answers their echoes' lengths, or the error's code. */
  datagrams: async (target: Target, sizes: readonly number[]): Promise<number[] | string> => {
    const socket = createSocket(target.host.includes(":") ? "udp6" : "udp4");
    try {
      socket.connect(target.port, target.host);
      await once(socket, "connect");
      const lengths: number[] = [];
      for (const size of sizes) {
        const answered = once(socket, "message", { signal: AbortSignal.timeout(10_000) });
        socket.send(Buffer.alloc(size), (error) => (error === null ? undefined : socket.emit("error", error)));
        const [message] = (await answered) as [Buffer];
        lengths.push(message.length);
      }
      return lengths;
    } catch (error) {
      return codeOf(error);
    } finally {
      socket.close();
    }
  },
  /** Asks for an echo; the payload's length that came back, the error's code, or `nothing` when the limit passes. */
  ping: async (address: string, bytes: number, limitMs: number): Promise<number | string> => {
    const socket = await connectEcho({ address, port: 0 });
    const { toSocket, toStream } = carryEcho({ address, port: 0 });
    const sent = Buffer.concat([Buffer.from([0x12, 0x34]), Buffer.alloc(bytes, "echo?")]);
    try {
      const limit = AbortSignal.timeout(limitMs);
      socket.send(toSocket(sent)!);
      const [message, { address: from }] = (await once(socket, "message", { signal: limit })) as [Buffer, RemoteInfo];
      return sent.equals(toStream(message, from) ?? Buffer.alloc(0)) ? bytes : "another echo";
    } catch (error) {
      return codeOf(error) === "ABORT_ERR" ? "nothing" : codeOf(error);
    } finally {
      socket.close();
    }
  },
  /** One socket, one datagram to each of so many addresses of 10.96.0.0/16: how many came back, asked up to three times. */
  manyFlows: async (count: number, port: number): Promise<number> => {
    const socket = createSocket({ type: "udp4", recvBufferSize: 8 * 1024 * 1024 });
    socket.bind(0);
    await once(socket, "listening");
    const waiting = new Set(Array.from({ length: count }, (_, index) => `10.96.${8 + (index >> 8)}.${index & 255}`));
    socket.on("message", (_, { address }) => waiting.delete(address));
    for (let round = 0; round < 3 && waiting.size > 0; round++) {
      let asked = 0;
      const before = waiting.size;
      const answered = (): number => before - waiting.size;
      let lost = 0;
      for (const address of waiting) {
        socket.send("flow", port, address);
        asked++;
        // as many under way as the device's queue has room for
        if (asked - answered() - lost <= 200) continue;
        if (!(await comes(socket))) lost = asked - answered();
      }
      while (waiting.size > 0 && (await comes(socket)));
    }
    socket.close();
    return count - waiting.size;
  },
};
export type ProgramHandlers = typeof handlers;
answerCalls(handlers);
