// The root helper. Where it was set up as a service the daemon calls it. Else it is started by the command, because only
// that has the user's terminal: root starts it directly; sudo is first asked not to ask; only then does it ask, and the
// exact command is named before. The helper's standard input is
// a connection to the daemon: whoever holds it is the helper, and its end is the helper's end.
import { deadline, raceSignal } from "#base/abort.ts";
import { AppError, isAppError, toAppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import type { DaemonClient } from "./daemon-client.ts";
import { connectSocket } from "./daemon-socket.ts";
import type { HelperStart, StartedProgram } from "#cli/machine.ts";

/** chosen: sudo that may not ask answers within this, even if a directory service far away has to be asked first. */
const quietAnswerMs = 60_000;
/** chosen: between two looks whether the helper has come up. */
const pollMs = 20;
/** chosen: time for a person to find and type a password. */
const passwordLimitMs = 300_000;

export interface HelperAttempt {
  /** Resolves with `helper_failed`, and what it said last, when the helper's program has ended; never rejects. */
  readonly failure: Promise<AppError>;
}

/**
 * The right to start the helper; undefined when one is up. Of commands at once one starts it, and the others wait for
 * what comes of its `connect`: two helpers at one door would throw each other out.
 */
export async function claimHelper(context: CommandContext, client: DaemonClient): Promise<Disposable | undefined> {
  const { machine, clock, interrupts } = context;
  for (;;) {
    const lock = await machine.tryHelperLock();
    const { helperRunning } = await client.hello(); // asked under the lock, if we have it
    if (!helperRunning && lock !== undefined) return lock;
    lock?.[Symbol.dispose]();
    if (helperRunning) return undefined;
    await clock.sleep(pollMs, interrupts.signal);
  }
}

/** chosen: longer than the daemon's own limit. */
const serviceLimitMs = 20_000;

/** True when a helper came from the system's service, which asks for no password. */
export async function callService({ machine, output }: CommandContext, client: DaemonClient): Promise<boolean> {
  if (!machine.helperService) return false;
  const { problem } = await client.call("callHelper", {}, serviceLimitMs).catch(asProblem);
  if (problem === undefined) return true;
  output.warn(`${problem}; \`telepresence helper install\` sets the root helper up again`);
  return false;
}

/** A daemon of an earlier version knows of no service. */
function asProblem(error: unknown): { readonly problem: string } {
  if (isAppError(error, "unsupported") || isAppError(error, "timeout")) return { problem: error.message };
  throw error;
}

/** Resolves when `connect` can be sent: the helper is up, or on its way and needs nothing more from the user. */
export async function startHelper(context: CommandContext, client: DaemonClient): Promise<HelperAttempt> {
  const { machine, output } = context;
  if (machine.isRoot) return attemptOf(context, await launch(context, "directly"));
  const quiet = await launch(context, "sudo-quietly");
  // What sudo does tells, never how long it takes: a refusal that came late would leave nobody who asks.
  if ((await firstOf(context, client, quiet, quietAnswerMs)) !== "ended") return attemptOf(context, quiet);
  if (!machine.hasTerminal) {
    throw failure("sudo needs a password for the root helper, and there is no terminal to ask on", context);
  }
  output.announce(`Need root privileges to run: ${machine.helperCommandLine}`);
  const asking = await launch(context, "sudo-on-terminal");
  if ((await firstOf(context, client, asking, passwordLimitMs)) === "ended") throw await endedEarly(context, asking);
  return attemptOf(context, asking);
}

async function launch(context: CommandContext, how: HelperStart): Promise<StartedProgram> {
  const { machine } = context;
  const socket = await connectSocket(machine.helperSocket);
  if (socket === undefined) {
    throw new AppError("helper_failed", `the user daemon does not listen for its helper on ${machine.helperSocket}`, {
      hint: "run `telepresence quit` and connect again",
    });
  }
  try {
    return await machine.startHelper(how, socket);
  } catch (error) {
    if (how === "directly" || toAppError(error).fields["file"] !== "sudo") throw error;
    throw new AppError("helper_failed", "root privileges are needed for the network device, and there is no sudo", {
      cause: error,
      hint: "install sudo, or run telepresence as root",
    });
  } finally {
    socket.destroy(); // the child has its own copy
  }
}

/** Which comes first: sudo has let the helper through, or has ended, or the time is over. */
async function firstOf(
  context: CommandContext,
  client: DaemonClient,
  program: StartedProgram,
  limitMs: number,
): Promise<"begun" | "ended" | "late"> {
  const { clock, interrupts, machine } = context;
  using limit = deadline(clock, limitMs, "the start of the root helper", interrupts.signal);
  let ended = false;
  void program.ended.then(() => (ended = true));
  try {
    while (!ended) {
      if (machine.helperHasBegun(program.pid)) return "begun";
      if ((await raceSignal(client.hello(), limit.signal)).helperRunning) return "begun";
      await clock.sleep(pollMs, limit.signal);
    }
    return "ended";
  } catch (error) {
    interrupts.signal.throwIfAborted();
    if (limit.signal.aborted) return "late";
    throw error;
  }
}

function attemptOf(context: CommandContext, program: StartedProgram): HelperAttempt {
  return { failure: program.ended.then(() => endedEarly(context, program)) };
}

async function endedEarly(context: CommandContext, program: StartedProgram): Promise<AppError> {
  const { code, signal } = await program.ended;
  const said = await program.lastWords();
  const how = signal === undefined ? `exit code ${code}` : signal;
  return failure(
    `the root helper ended with ${how} before it was ready${said === undefined ? "" : `: ${said}`}`,
    context,
  );
}

function failure(message: string, { machine }: CommandContext): AppError {
  const hint = machine.isRoot
    ? `its log is ${machine.helperLog}`
    : `run the command in a terminal, or let sudo run \`${machine.helperCommandLine.replace(/^sudo /, "")}\` without a password`;
  return new AppError("helper_failed", message, { hint });
}
