// Callers of agent-pod.ts, in the namespace at the other end of its wire: connections that are kept open and asked again
// and again, and new ones all the time. Counts who answered and what failed.
import { connect } from "node:net";
import type { Socket } from "node:net";
import { answerCalls } from "./process-calls.ts";

export interface Counts {
  readonly application: number;
  readonly laptop: number;
  readonly errors: readonly string[];
}

const target = { host: "198.51.100.2", port: 8080, noDelay: true };
let counts = { application: 0, laptop: 0, errors: [] as string[] };
const kept = new Set<Socket>();
let stopped = false;

function ask(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    const onEnd = (error?: Error): void => reject(error ?? new Error("ended"));
    socket.once("error", onEnd).once("close", onEnd);
    socket.once("data", (bytes: Buffer) => {
      socket.off("error", onEnd).off("close", onEnd);
      resolve(bytes.toString().trim());
    });
    socket.write("?\n");
  });
}
function count(answer: string): void {
  if (answer === "application" || answer === "laptop") counts[answer] += 1;
  else counts.errors.push(`unexpected answer ${answer}`);
}
async function keepAsking(socket: Socket): Promise<void> {
  try {
    while (!stopped && kept.has(socket)) {
      count(await ask(socket));
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  } catch (error) {
    if (kept.has(socket)) counts.errors.push(`kept: ${String(error)}`);
  }
  socket.destroy();
}
async function askAnew(): Promise<void> {
  while (!stopped) {
    const socket = connect(target);
    try {
      count(await ask(socket));
    } catch (error) {
      counts.errors.push(`new: ${String(error)}`);
    }
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const callerCalls = {
  keep: async (number: number): Promise<readonly string[]> => {
    const answers: string[] = [];
    for (let index = 0; index < number; index += 1) {
      const socket = connect(target);
      answers.push(await ask(socket));
      kept.add(socket);
      void keepAsking(socket);
    }
    return answers;
  },
  startNew: (number: number): void => {
    for (let index = 0; index < number; index += 1) void askAnew();
  },
  /** The counts since the last call. */
  take: (): Counts => {
    const taken = counts;
    counts = { application: 0, laptop: 0, errors: [] };
    return taken;
  },
  release: (): void => {
    const sockets = [...kept];
    kept.clear();
    for (const socket of sockets) socket.destroy();
  },
  stop: (): void => {
    stopped = true;
  },
};

answerCalls(callerCalls);
