// The callers of caller-address.test.ts, in a network namespace of their own.
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { answerCalls } from "./process-calls.ts";

export interface Way {
  readonly from: string;
  readonly to: string;
}

const port = 8080;
const kept: Socket[] = [];

async function open({ from, to }: Way): Promise<Socket> {
  const socket = connect({ host: to, port, localAddress: from, allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  return socket;
}
async function readLine(socket: Socket): Promise<string> {
  let text = "";
  while (!text.endsWith("\n")) {
    const [bytes] = (await once(socket, "data")) as [Buffer];
    text += bytes.toString();
  }
  return text.trim();
}
async function who(socket: Socket): Promise<{ readonly seen: string; readonly own: string }> {
  const own = `${socket.localAddress} ${socket.localPort}`;
  socket.write("who\n");
  return { seen: await readLine(socket), own };
}

export const strangerCalls = {
  /** Of so many connections at once: those that the application does not see as they are. */
  misseen: async (way: Way, number: number): Promise<readonly string[]> => {
    const answers = await Promise.all(
      Array.from({ length: number }, async () => {
        const socket = await open(way);
        const { seen, own } = await who(socket);
        socket.end();
        await once(socket.resume(), "close");
        return seen === own ? "" : `${own} seen as ${seen}`;
      }),
    );
    return answers.filter((answer) => answer !== "");
  },
  /** The address that the application sees. */
  seenAs: async (way: Way): Promise<string> => {
    const socket = await open(way);
    const { seen } = await who(socket);
    socket.destroy();
    return seen.split(" ")[0] ?? "";
  },
  halfClose: async (way: Way): Promise<string> => {
    const socket = await open(way);
    socket.end("one\n");
    let text = "";
    for await (const bytes of socket) text += String(bytes);
    return text;
  },
  beReset: async (way: Way): Promise<string> => {
    const socket = await open(way);
    socket.write("reset\n");
    return await new Promise((resolve) => {
      socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
      socket.once("end", () => resolve("end"));
    });
  },
  reset: async (way: Way): Promise<void> => {
    const socket = await open(way);
    await who(socket);
    socket.resetAndDestroy();
  },
  /** Bytes that came back of a line so long. */
  echo: async (way: Way, bytes: number): Promise<number> => {
    const socket = await open(way);
    socket.end(`${"x".repeat(bytes)}\n`);
    let count = 0;
    for await (const chunk of socket) count += (chunk as Buffer).length;
    return count - "end\n".length - 1;
  },
  /** Twice from one port, as soon as the kernel gives it again; the addresses that the application saw. */
  fromOnePort: async (way: Way, localPort: number): Promise<readonly string[]> => {
    const seen: string[] = [];
    for (let tries = 0; seen.length < 2 && tries < 50; tries += 1) {
      const socket = connect({ host: way.to, port, localAddress: way.from, localPort, allowHalfOpen: true });
      try {
        await once(socket, "connect");
        seen.push((await who(socket)).seen);
        socket.end();
        await once(socket.resume(), "close");
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 100)); // it lingers still
      }
    }
    return seen;
  },
  /** Opens connections that stay; `ask` uses them again. */
  keep: async (way: Way, number: number): Promise<void> => {
    for (let index = 0; index < number; index += 1) {
      const socket = await open(way);
      await who(socket);
      kept.push(socket);
    }
  },
  ask: async (): Promise<readonly string[]> => {
    const answers = await Promise.all(kept.map((socket) => who(socket)));
    const wrong = answers.filter(({ seen, own }) => seen !== own);
    return wrong.map(({ seen, own }) => `${own} seen as ${seen}`);
  },
  release: (): void => {
    for (const socket of kept.splice(0)) socket.destroy();
  },
};

answerCalls(strangerCalls);
