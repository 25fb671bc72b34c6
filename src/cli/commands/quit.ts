// `quit`: ends intercepts and outbound traffic, then both daemons, of all connections or of the one that --use means.
// Idempotent; says so when there is nothing to end.
import { toAppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { findUsed, nameOf, runningConnections } from "#cli/connection/connections.ts";
import { openDaemon, quitDaemon } from "#cli/connection/daemon-socket.ts";

export async function runQuit(context: CommandContext): Promise<number> {
  const { flags, machine, output } = context;
  const running = await runningConnections(machine);
  const used = flags.use === undefined ? undefined : findUsed(running, flags.use);
  const meant = flags.use === undefined ? running : used === undefined ? [] : [used];
  if (meant.length === 0) {
    output.line(running.length === 0 ? "Not connected" : `Not connected: --use "${flags.use}" matches no connection`);
    output.data({ was_running: false, was_connected: false });
    return 0;
  }
  output.progress("Telepresence Daemons quitting...");
  const ended = await Promise.allSettled(meant.map((each) => quitOne({ ...context, machine: each })));
  const failed = ended.flatMap((end, index) =>
    end.status === "fulfilled" ? [] : [{ connection: meant[index], error: toAppError(end.reason) }],
  );
  const [first, ...others] = failed;
  for (const { connection, error } of others) {
    output.warn(`the connection ${connection === undefined ? "" : nameOf(connection)} did not end: ${error.message}`);
  }
  if (first !== undefined) throw first.error;
  output.line("Telepresence Daemons quitting...done");
  const wasConnected = ended.some((end) => end.status === "fulfilled" && end.value === true);
  const names = meant.map(nameOf);
  const several = machine.namedConnections().length === 0 ? {} : { connections: names };
  output.data({ was_running: true, was_connected: wasConnected, ...several });
  return 0;
}

/** Undefined when it ended before it could say whether it was connected. */
async function quitOne(context: CommandContext): Promise<boolean | undefined> {
  using daemon = await openDaemon(context);
  return daemon === undefined ? undefined : await quitDaemon(context, daemon);
}
