// The daemon's Unix socket: whether somebody answers there, and starting the daemon when nobody does. Of commands at
// once the one that holds the lock starts it; the others wait for its socket.
import type { Socket } from "node:net";
import { connect } from "node:net";
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError, isAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import type { CommandContext } from "#cli/context.ts";
import type { DaemonClient, Hello } from "./daemon-client.ts";
import type { StartedProgram } from "#cli/machine.ts";

/** chosen: from start to the first answer. */
const startLimitMs = 10_000;
/** chosen: between two looks at the socket. */
const startPollMs = 25;
/** chosen: a daemon that ended at once may have met one that is ending; then another is started. */
const maxStarts = 3;
const restartMs = 200;
/** chosen: a daemon that has not answered yet has nothing to undo. */
const stopLimitMs = 2000;
/** chosen: how long the daemon may take to end after it said it would. */
const endLimitMs = 15_000;
/** chosen: intercepts are drained before the answer. */
const quitLimitMs = 60_000;

export interface OpenedDaemon extends Disposable {
  readonly client: DaemonClient;
  readonly hello: Hello;
  /** This command started it. */
  readonly started: boolean;
}

/** The running daemon, or undefined when there is none. Never starts one. */
export async function openDaemon(context: CommandContext): Promise<OpenedDaemon | undefined> {
  const opened = await tryOpen(context);
  if (opened !== undefined) warnOfSkew(context, opened.hello);
  return opened;
}

/** The running daemon, or a fresh one. */
export async function openOrStartDaemon(context: CommandContext, onStart: () => void): Promise<OpenedDaemon> {
  const running = await openDaemon(context);
  if (running !== undefined) return running;
  onStart();
  using limit = deadline(context.clock, startLimitMs, "the start of the user daemon", context.interrupts.signal);
  return await startDaemon(context, limit.signal); // awaited: the limit ends with this function
}

async function startDaemon(context: CommandContext, signal: AbortSignal): Promise<OpenedDaemon> {
  for (;;) {
    using lock = await context.machine.tryStartLock();
    const running = await tryOpen(context); // looked at under the lock: whoever held it before has started one
    if (running !== undefined) return running;
    if (lock !== undefined) return await startLocked(context, signal);
    await context.clock.sleep(startPollMs, signal);
  }
}

async function startLocked(context: CommandContext, signal: AbortSignal): Promise<OpenedDaemon> {
  let program: StartedProgram | undefined;
  try {
    for (let starts = 1; starts <= maxStarts; starts++) {
      program = await context.machine.startDaemon();
      const opened = await waitForAnswer(context, program, signal);
      if (opened !== undefined) return { ...opened, started: opened.hello.pid === program.pid };
      await context.clock.sleep(restartMs, signal);
    }
  } catch (error) {
    if (context.interrupts.signal.aborted) await stopStarting(context, program);
    if (!isAppError(error, "timeout")) throw error;
    throw await startFailure(context, program, `did not answer within ${startLimitMs / 1000} s`, error);
  }
  const end = await program?.ended;
  throw await startFailure(context, program, `ended with ${end?.signal ?? `exit code ${end?.code}`}`);
}

/** Of a command that was interrupted nothing comes up behind its back. */
async function stopStarting({ clock }: CommandContext, program: StartedProgram | undefined): Promise<void> {
  if (program === undefined) return;
  program.stop();
  using limit = deadline(clock, stopLimitMs, "the end of the user daemon");
  await raceSignal(program.ended, limit.signal).catch(() => undefined); // it ends a little later, then
}

/** Undefined when the program has ended and nobody else answers. */
async function waitForAnswer(
  context: CommandContext,
  program: StartedProgram,
  signal: AbortSignal,
): Promise<OpenedDaemon | undefined> {
  let ended = false;
  void program.ended.then(() => (ended = true));
  for (;;) {
    const lastLook = ended;
    const opened = await raceSignal(tryOpen(context), signal);
    if (opened !== undefined || lastLook) return opened;
    await context.clock.sleep(startPollMs, signal);
  }
}

async function tryOpen(context: CommandContext): Promise<OpenedDaemon | undefined> {
  const { machine, output, clock, interrupts } = context;
  const socket = await connectSocket(machine.controlSocket);
  if (socket === undefined) return undefined;
  const { DaemonClient: Client } = await import("./daemon-client.ts");
  const onProgress = (text: string): void => output.progress(text);
  const client = new Client(socket, { clock, signal: interrupts.signal, onProgress, log: machine.daemonLog });
  try {
    return { client, hello: await client.hello(), started: false, [Symbol.dispose]: () => client[Symbol.dispose]() };
  } catch (error) {
    client[Symbol.dispose]();
    if (isAppError(error, "daemon_unreachable")) return undefined; // it was about to end
    throw error;
  }
}

/** Undefined when nobody listens: no socket, or the one that a killed daemon left. */
export function connectSocket(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.removeListener("error", onError);
      resolve(socket);
    });
    socket.once("error", onError);

    function onError(error: NodeJS.ErrnoException): void {
      if (["ENOENT", "ECONNREFUSED", "ENOTDIR", "ECONNRESET"].includes(error.code ?? "")) {
        resolve(undefined);
        return;
      }
      reject(
        new AppError("daemon_unreachable", `the user daemon's socket ${path} cannot be used: ${error.message}`, {
          cause: error,
          hint: "check who owns it and its directory",
        }),
      );
    }
  });
}

function warnOfSkew(context: CommandContext, hello: Hello): void {
  if (hello.version === softwareVersion) return;
  context.output.warn(
    `the running user daemon is version ${hello.version} and this command is ${softwareVersion}; ` +
      "run `telepresence quit`, then connect again",
  );
}

async function startFailure(
  { machine }: CommandContext,
  program: StartedProgram | undefined,
  what: string,
  cause?: unknown,
): Promise<AppError> {
  const said = await program?.lastWords();
  const message = `the user daemon ${what}${said === undefined ? "" : `: ${said}`}`;
  return new AppError("daemon_unreachable", message, { cause, hint: `its log is ${machine.daemonLog}` });
}

/** Waits until a daemon that said goodbye has really left: no socket, no process. */
export async function waitUntilGone(context: CommandContext, pid: number): Promise<void> {
  const { machine, clock, interrupts } = context;
  using limit = deadline(clock, endLimitMs, "the end of the user daemon", interrupts.signal);
  while (machine.isAlive(pid)) await clock.sleep(startPollMs, limit.signal);
}

/** Ends the daemon and waits for it. One that hangs up instead of answering has done what it was asked to. */
/** Whether there was a connection; undefined when the daemon ended before it could say so. */
export async function quitDaemon(
  context: CommandContext,
  { client, hello }: OpenedDaemon,
): Promise<boolean | undefined> {
  const answer = await client.call("quit", {}, quitLimitMs).catch((error: unknown) => {
    if (!isAppError(error, "daemon_unreachable")) throw error;
    return undefined;
  });
  await waitUntilGone(context, hello.pid);
  return answer?.wasConnected;
}
