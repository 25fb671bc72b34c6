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
/** One for each connection that is kept, and for each that makes new ones again and again. */
const askers = new Set<{ answered: number }>();
/** Told of each answer and each failure. */
const watchers: (() => void)[] = [];
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
function tell(): void {
  for (const watcher of watchers.splice(0)) watcher();
}
/** `first` answered its first question, and whoever that was must answer the others. */
async function keepAsking(socket: Socket, first: string): Promise<void> {
  const asker = { answered: 0 };
  askers.add(asker);
  let broken: Error | undefined;
  socket.on("error", (error) => (broken = error)); // between two questions, too
  try {
    while (!stopped && kept.has(socket)) {
      const answer = await ask(socket);
      count(answer);
      if (answer !== first) counts.errors.push(`kept: ${answer} answers a connection of the ${first}`);
      asker.answered += 1;
      tell();
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (socket.destroyed && kept.has(socket)) throw broken ?? new Error("ended");
    }
  } catch (error) {
    if (kept.has(socket)) counts.errors.push(`kept: ${String(error)}`);
    tell();
  }
  askers.delete(asker);
  socket.destroy();
}
async function askAnew(): Promise<void> {
  const asker = { answered: 0 };
  askers.add(asker);
  while (!stopped) {
    const socket = connect(target);
    try {
      count(await ask(socket));
      asker.answered += 1;
    } catch (error) {
      counts.errors.push(`new: ${String(error)}`);
    }
    tell();
    socket.destroy();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  askers.delete(asker);
}
function take(): Counts {
  const taken = counts;
  counts = { application: 0, laptop: 0, errors: [] };
  return taken;
}

export const callerCalls = {
  keep: async (number: number): Promise<readonly string[]> => {
    const answers: string[] = [];
    for (let index = 0; index < number; index += 1) {
      const socket = connect(target);
      const answer = await ask(socket);
      answers.push(answer);
      kept.add(socket);
      void keepAsking(socket, answer);
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
  take,
  /**
   * The counts from now until each connection that is kept was answered so many times more, and each that makes new
   * ones has made as many; sooner when something fails. However slow the machine is, the counts mean the same.
   */
  rounds: async (times: number): Promise<Counts> => {
    const failures = take().errors;
    const goals = [...askers].map((asker) => ({ asker, goal: asker.answered + times }));
    const isDone = (): boolean => counts.errors.length > 0 || goals.every(({ asker, goal }) => asker.answered >= goal);
    while (failures.length === 0 && !isDone()) await new Promise<void>((resolve) => watchers.push(resolve));
    const taken = take();
    return { ...taken, errors: [...failures, ...taken.errors] };
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
