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

const held: { readonly socket: Socket; readonly outcome: Promise<string> }[] = [];

function outcomeOf(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once("error", (error) => resolve((error as NodeJS.ErrnoException).code ?? error.message));
    socket.once("end", () => resolve("end"));
  });
}
function ask(socket: Socket, question = "?\n"): Promise<string> {
  return new Promise((resolve, reject) => {
    const onEnd = (error?: Error): void => reject(error ?? new Error("ended"));
    socket.once("error", onEnd).once("close", onEnd);
    socket.once("data", (bytes: Buffer) => {
      socket.off("error", onEnd).off("close", onEnd);
      resolve(bytes.toString().trim());
    });
    socket.write(question);
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
  /** Opened, asked `times`, and then left alone. */
  hold: async (number: number, times: number): Promise<readonly string[]> => {
    const answers: string[] = [];
    for (let index = 0; index < number; index += 1) {
      const socket = connect(target);
      for (let time = 0; time < times; time += 1) answers.push(await ask(socket));
      held.push({ socket, outcome: outcomeOf(socket) });
    }
    return answers;
  },
  /** The same, and then a question whose answer takes long. */
  holdAsking: async (): Promise<void> => {
    const socket = connect(target);
    await ask(socket);
    socket.on("error", () => undefined); // when it is idle at last
    const answer = ask(socket, "slow\n").catch((error: unknown) => `slow: ${String(error)}`);
    held.push({ socket, outcome: answer });
  },
  /** From now on the agent's port, as a Service does after a take-over by name. */
  dialAgent: (): void => {
    target.port = 9900;
  },
  /** How those held have ended; `open` while they have not. */
  outcomes: (): Promise<readonly string[]> => {
    const now = Promise.resolve("open");
    return Promise.all(held.map(({ outcome }) => Promise.race([outcome, now])));
  },
  /** Whether the connection is used still, and answered by whom. */
  askHeld: (index: number): Promise<string> => ask(held[index]!.socket),
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
