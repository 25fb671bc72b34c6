// Runs on a laptop for outbound.test.ts and dns.test.ts: an ordinary program that calls the cluster and prints what
// came of it as one JSON line. `node caller.ts TASK JSON`. It knows nothing of the product.
import { createHash, randomBytes } from "node:crypto";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { decode, encode, type Packet } from "dns-packet";

export interface Target {
  readonly host: string;
  readonly port: number;
}

export interface Dialled {
  /** `connected`, or the error's code as any program sees it. */
  readonly outcome: string;
  readonly ms: number;
}

export interface Answer {
  readonly rcode: string;
  readonly answers: readonly string[];
  readonly ttl: number | undefined;
  readonly ms: number;
}

export interface Question {
  readonly server: string;
  readonly name: string;
  readonly type?: string;
  readonly tcp?: boolean;
}

const since = (startMs: number): number => Math.round((performance.now() - startMs) * 10) / 10;

async function dial({ host, port, limitMs = 20_000 }: Target & { readonly limitMs?: number }): Promise<Dialled> {
  const startMs = performance.now();
  const socket = connect({ host, port });
  const limit = AbortSignal.timeout(limitMs);
  try {
    await once(socket, "connect", { signal: limit });
    return { outcome: "connected", ms: since(startMs) };
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    return { outcome: limit.aborted ? "silent" : code, ms: since(startMs) };
  } finally {
    socket.destroy();
  }
}

/** Sends all, half-closes, reads to the end: what came back, as a hash. */
async function exchange(socket: Socket, data: Uint8Array): Promise<{ readonly bytes: number; readonly hash: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  socket.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  const ended = once(socket, "end");
  socket.end(data);
  await ended;
  return { bytes, hash: hash.digest("hex") };
}

const udpSocketTo = (host: string): DatagramSocket => createSocket(host.includes(":") ? "udp6" : "udp4");
const sha = (data: Uint8Array): string => createHash("sha256").update(data).digest("hex");

const tasks: Readonly<Record<string, (input: never) => Promise<unknown>>> = {
  dial,

  dialAll: (targets: readonly Target[]): Promise<readonly Dialled[]> => Promise.all(targets.map(dial)),

  /** One connection, so many bytes both ways, the sending half closed before the last came back. */
  bulk: async ({ host, port, bytes }: Target & { readonly bytes: number }) => {
    const data = randomBytes(bytes);
    const startMs = performance.now();
    const socket = connect({ host, port, allowHalfOpen: true });
    await once(socket, "connect");
    const back = await exchange(socket, data);
    return { bytes: back.bytes, same: back.hash === sha(data), ms: since(startMs) };
  },

  /** Many at once, each with its own bytes. */
  parallel: async ({ host, port, count }: Target & { readonly count: number }) => {
    const startMs = performance.now();
    const results = await Promise.allSettled(
      Array.from({ length: count }, async () => {
        const data = randomBytes(4096);
        const socket = connect({ host, port, allowHalfOpen: true });
        await once(socket, "connect");
        return (await exchange(socket, data)).hash === sha(data);
      }),
    );
    const good = results.filter((result) => result.status === "fulfilled" && result.value).length;
    const failed = results.flatMap((result) => (result.status === "rejected" ? [String(result.reason)] : []));
    return { good, failed: [...new Set(failed)], ms: since(startMs) };
  },

  /** Datagrams of several sizes to an echo; each is asked again when it did not come back, as UDP's users do. */
  udp: async ({ host, port, sizes }: Target & { readonly sizes: readonly number[] }) => {
    const socket = udpSocketTo(host);
    const same: boolean[] = [];
    for (const size of sizes) {
      const data = randomBytes(size);
      let back: Buffer | undefined;
      for (let tries = 0; tries < 3 && back === undefined; tries++) {
        socket.send(data, port, host);
        const answered = once(socket, "message", { signal: AbortSignal.timeout(3000) });
        back = await answered.then(([message]) => message as Buffer).catch(() => undefined);
      }
      same.push(back?.equals(data) === true);
    }
    socket.close();
    return { same };
  },

  /** A connection that stays open and idle while others come and go; then it is used. */
  refusedDatagram: async ({ host, port }: Target) => {
    const socket = udpSocketTo(host);
    socket.connect(port, host);
    await once(socket, "connect");
    socket.send("x");
    const startMs = performance.now();
    const outcome = await Promise.race([
      once(socket, "error").then(([error]) => (error as NodeJS.ErrnoException).code),
      once(socket, "message", { signal: AbortSignal.timeout(3000) }).catch((error: NodeJS.ErrnoException) =>
        error.name === "AbortError" ? "silent" : error.code,
      ),
    ]);
    socket.close();
    return { outcome, ms: since(startMs) };
  },

  ask: (question: Question): Promise<Answer> => ask(question),

  /** Asks again and again until this is the only answer; says when, by the wall clock. */
  askUntil: async ({
    answer,
    limitMs,
    ...question
  }: Question & { readonly answer: string; readonly limitMs: number }) => {
    const endMs = Date.now() + limitMs;
    for (;;) {
      const { answers } = await ask(question);
      if (answers.length === 1 && answers[0] === answer) return { atMs: Date.now() };
      if (Date.now() > endMs) throw new Error(`${question.name} was ${answers.join()} to the end`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },

  /** All at once over one socket, as a busy resolver library does. */
  askMany: async ({ server, names }: { readonly server: string; readonly names: readonly string[] }) => {
    const startMs = performance.now();
    const socket = createSocket("udp4");
    socket.bind(0);
    await once(socket, "listening");
    socket.setRecvBufferSize(4 << 20);
    const waiting = new Map(names.map((name, id) => [id, name]));
    const rcodes: Record<string, number> = {};
    const done = Promise.withResolvers<void>();
    socket.on("message", (message) => {
      const packet = decode(message);
      if (!waiting.delete(packet.id ?? -1)) return;
      const rcode = rcodeOf(packet);
      rcodes[rcode] = (rcodes[rcode] ?? 0) + 1;
      if (waiting.size === 0) done.resolve();
    });
    for (let round = 0; round < 3 && waiting.size > 0; round++) {
      for (const [id, name] of waiting) socket.send(query(id, name, "A"), 53, server);
      await Promise.race([done.promise, once(AbortSignal.timeout(5000), "abort")]);
    }
    socket.close();
    return { rcodes, unanswered: waiting.size, ms: since(startMs) };
  },
};

const query = (id: number, name: string, type: string): Buffer =>
  encode({ type: "query", id, flags: 0x0100, questions: [{ type: type as "A", name }] });

const rcodeOf = (packet: Packet): string => (packet as { readonly rcode?: string }).rcode ?? "";

async function ask({ server, name, type = "A", tcp = false }: Question): Promise<Answer> {
  const startMs = performance.now();
  const packet = decode(tcp ? await askStream(server, query(7, name, type)) : await askDatagram(server, name, type));
  const answers = (packet.answers ?? []).map((answer) => ("data" in answer ? textOf(answer.data) : ""));
  const [first] = packet.answers ?? [];
  return {
    rcode: rcodeOf(packet),
    answers,
    ttl: first !== undefined && "ttl" in first ? first.ttl : undefined,
    ms: since(startMs),
  };
}

const textOf = (data: unknown): string => (typeof data === "string" ? data : JSON.stringify(data));

/** As resolver libraries do: a connected socket, which hears that nobody listens, and a new one for each try. */
async function askDatagram(server: string, name: string, type: string): Promise<Buffer> {
  for (let tries = 0; tries < 3; tries++) {
    const socket = createSocket("udp4");
    try {
      socket.connect(53, server);
      await once(socket, "connect");
      socket.send(query(7, name, type));
      const [message] = (await once(socket, "message", { signal: AbortSignal.timeout(6000) })) as [Buffer];
      return message;
    } catch {
      // once more
    } finally {
      socket.close();
    }
  }
  throw new Error(`${server} did not answer ${name} ${type}`);
}

async function askStream(server: string, message: Buffer): Promise<Buffer> {
  const socket = connect({ host: server, port: 53 });
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  socket.write(Buffer.concat([length, message]));
  let got = Buffer.alloc(0);
  for await (const chunk of socket) {
    got = Buffer.concat([got, chunk as Buffer]);
    if (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) break;
  }
  socket.destroy();
  return got.subarray(2);
}

const [task = "", input = "{}"] = process.argv.slice(2);
const run = tasks[task];
if (run === undefined) throw new Error(`no task ${task}`);
process.stdout.write(`${JSON.stringify(await run(JSON.parse(input) as never))}\n`);
