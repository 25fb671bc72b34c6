// `quit`: ends intercepts and outbound traffic, then both daemons. Idempotent; says so when there is nothing to end.
import type { CommandContext } from "#cli/context.ts";
import { openDaemon, quitDaemon } from "#cli/daemon-socket.ts";

export async function runQuit(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  const { output } = context;
  if (daemon === undefined) {
    output.line("Not connected");
    output.data({ was_running: false, was_connected: false });
    return 0;
  }
  output.progress("Telepresence Daemons quitting...");
  const wasConnected = await quitDaemon(context, daemon);
  output.line("Telepresence Daemons quitting...done");
  output.data({ was_running: true, was_connected: wasConnected });
  return 0;
}
