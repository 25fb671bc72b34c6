// The agent's door for whoever may run programs in its container, which is what the cluster grants by `pods/exec`: an
// abstract Unix socket, which needs no file system that can be written. Every container of the pod could connect to it,
// or listen there first; so both ends look who the other is, by the kernel's word: a process of another container has
// another mount namespace. One line of JSON each way (PROTOCOL §8.8).
import { once } from "node:events";
import { readlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { AppError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { peerCredentials } from "#kernel/peer-cred.ts";
import { doorAnswerSchema, revocationSchema } from "#wire/agent-door.ts";
import type { DoorAnswer, Revocation } from "#wire/agent-door.ts";

/** chosen: agents confirm within seconds. */
const answerMs = 10_000;
const maxLineBytes = 4096;
const maxCallers = 8;

export interface ContainerDoorOptions {
  /** Of the abstract socket. */
  readonly name: string;
  readonly revoke: (revocation: Revocation, signal: AbortSignal) => Promise<void>;
  readonly isInside?: typeof isOfThisContainer;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Where somebody else listens already, the agent does without it, and says so in its log. */
export async function openContainerDoor(options: ContainerDoorOptions): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  const server = createServer((caller) => {
    open.add(caller);
    caller.once("close", () => open.delete(caller));
    caller.on("error", () => undefined); // 'close' follows
    void serve(caller, options);
  });
  server.maxConnections = maxCallers;
  try {
    server.listen(`\0${options.name}`);
    await once(server, "listening");
  } catch (error) {
    options.log.warn("intercepts cannot be revoked through this agent", { reason: toAppError(error).message });
  }
  return { [Symbol.asyncDispose]: () => close(server, open) };
}

/** Run by `pods/exec`: has the agent of this container end the intercept. Never rejects: the answer says why not. */
export async function askToRevoke(name: string, revocation: Revocation, clock: Clock): Promise<DoorAnswer> {
  try {
    return await ask(name, revocation, clock);
  } catch (error) {
    return failed(error);
  }
}

async function ask(name: string, revocation: Revocation, clock: Clock): Promise<DoorAnswer> {
  using limit = deadline(clock, answerMs, "the traffic-agent's answer");
  const socket = connect({ path: `\0${name}` });
  socket.on("error", () => undefined); // the waits below fail with it
  try {
    await once(socket, "connect", { signal: limit.signal });
    if (!(await isOfThisContainer(socket))) {
      throw new AppError("denied", "a program of another container listens in the traffic-agent's place");
    }
    socket.write(`${JSON.stringify(revocation)}\n`);
    return doorAnswerSchema.parse(JSON.parse(await readLine(socket, limit.signal)));
  } finally {
    socket.destroy();
  }
}

async function serve(caller: Socket, { revoke, isInside = isOfThisContainer, clock, log }: ContainerDoorOptions) {
  using limit = deadline(clock, answerMs, "a revocation");
  try {
    if (!(await isInside(caller))) throw new AppError("denied", "this program is not of the traffic-agent's container");
    const revocation = revocationSchema.parse(JSON.parse(await readLine(caller, limit.signal)));
    await raceSignal(revoke(revocation, limit.signal), limit.signal);
    caller.end("{}\n");
  } catch (error) {
    const answer = failed(error);
    log.warn("revocation refused", { reason: answer.error?.message });
    caller.end(`${JSON.stringify(answer)}\n`);
  }
}

function failed(error: unknown): DoorAnswer {
  const { code, message } = toAppError(error);
  return { error: { code, message } };
}

/** Whether the process at the other end runs in the same container; false, too, where that cannot be seen. */
async function isOfThisContainer(socket: Socket): Promise<boolean> {
  try {
    const { pid } = peerCredentials(socket);
    if (pid <= 0) return false; // of a process space that cannot be seen from here
    const [own, others] = await Promise.all(["self", pid].map((who) => readlink(`/proc/${who}/ns/mnt`)));
    return own === others;
  } catch {
    return false;
  }
}

async function readLine(socket: Socket, signal: AbortSignal): Promise<string> {
  let text = "";
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  socket.setEncoding("utf8");
  socket.on("data", (piece: string) => {
    text += piece;
    const end = text.indexOf("\n");
    if (end >= 0) resolve(text.slice(0, end));
    else if (text.length > maxLineBytes) reject(new AppError("protocol", "the line is too long"));
  });
  socket.once("close", () => reject(new AppError("link_lost", "the other end has left")));
  return await raceSignal(promise, signal);
}

async function close(server: Server, open: ReadonlySet<Socket>): Promise<void> {
  for (const socket of open) socket.destroy();
  if (server.listening) await new Promise((resolve) => server.close(resolve));
}
