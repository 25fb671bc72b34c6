// The command after `--`: on this terminal, with this command's signals, and its exit code is ours.
import { toAppError } from "#base/error.ts";
import type { OwnedCommand } from "#wire/control-api.ts";
import type { CommandContext } from "#cli/context.ts";
import type { DaemonClient } from "#cli/connection/daemon-client.ts";
import { signalExitCode } from "#cli/interrupts.ts";
import type { ForegroundCommand, ProgramEnd } from "#cli/machine.ts";

/** chosen: time to end in order after SIGTERM. */
const endGraceMs = 5000;

export interface ForegroundOptions {
  /** Ends the command in our place, should we be killed. */
  readonly client: DaemonClient;
  /** What its end undoes. */
  readonly undo: OwnedCommand["undo"];
  /** Resolves with the reason when the command has to end; never rejects. */
  readonly endedElsewhere?: Promise<string>;
}

/** Runs it to its end. When `endedElsewhere` says so, it is told to end, then made to. */
export async function runForeground(
  context: CommandContext,
  command: ForegroundCommand,
  { client, undo, endedElsewhere }: ForegroundOptions,
): Promise<number> {
  const { interrupts, machine, output } = context;
  output.clearProgress();
  interrupts.signal.throwIfAborted();
  const child = await machine.startForeground(command);
  if (child.identity !== undefined) {
    client.commandStarted({ ...child.identity, leadsGroup: child.leadsGroup, undo });
  }
  using _signals = interrupts.divert((name) => child.forward(name));
  let over = false;
  const stop = endedElsewhere?.then(async (reason) => {
    if (over) return;
    output.warn(`${reason}; ending ${command.command[0]}`);
    await child.terminate(endGraceMs);
  });
  stop?.catch((error: unknown) =>
    output.warn(`${command.command[0]} could not be ended: ${toAppError(error).message}`),
  );
  const end = await child.ended;
  over = true;
  client.commandEnded();
  return exitCodeOf(end);
}

export function exitCodeOf({ code, signal }: ProgramEnd): number {
  return signal === undefined ? (code ?? 1) : signalExitCode(signal);
}
