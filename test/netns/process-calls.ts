// Two processes of a test talk over Node's IPC channel: the test calls, the process answers.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";

interface Call {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
}
interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}
type Handlers = Readonly<Record<string, (...args: never[]) => unknown>>;

/** The calls that a process answers, with their promised results. */
export type Remote<T extends Handlers> = {
  readonly [Name in keyof T]: (...args: Parameters<T[Name]>) => Promise<Awaited<ReturnType<T[Name]>>>;
};

/** In the process: answers until the channel closes, then the process ends. */
export function answerCalls(handlers: Handlers): void {
  process.on("message", (call: Call) => {
    void (async () => {
      const handler = handlers[call.name] as (...args: unknown[]) => unknown;
      const reply = await Promise.resolve()
        .then(() => handler(...call.args))
        .then(
          (value): Reply => ({ id: call.id, value }),
          (error: unknown): Reply => ({ id: call.id, error: error instanceof Error ? error.message : String(error) }),
        );
      process.send?.(reply);
    })();
  });
  process.on("disconnect", () => process.exit(0));
  process.send?.({ id: 0, value: "ready" } satisfies Reply);
}

/** In the test: waits until the process is ready. */
export async function callProcess<T extends Handlers>(child: ChildProcess): Promise<Remote<T>> {
  let lastId = 0;
  const waiting = new Map<number, (reply: Reply) => void>();
  const ready = Promise.withResolvers<void>();
  waiting.set(0, () => ready.resolve());
  child.on("message", (reply: Reply) => {
    waiting.get(reply.id)?.(reply);
    waiting.delete(reply.id);
  });
  const exit = once(child, "exit").then(([code]) => {
    const error = `the test's process ended with ${String(code)}`;
    ready.reject(new Error(error));
    for (const [id, settle] of waiting) settle({ id, error });
  });
  void exit.catch(() => undefined);
  await ready.promise;
  const call = (name: string, args: readonly unknown[]): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const id = ++lastId;
      waiting.set(id, (reply) => (reply.error === undefined ? resolve(reply.value) : reject(new Error(reply.error))));
      child.send({ id, name, args } satisfies Call);
    });
  return new Proxy({} as Remote<T>, {
    get: (_, name) =>
      typeof name === "string" && name !== "then" ? (...args: unknown[]) => call(name, args) : undefined,
  });
}
