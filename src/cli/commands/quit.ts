// `quit`: ends intercepts and outbound traffic, then both daemons. Idempotent; says so when there is nothing to end.
import type { CommandContext } from "#cli/context.ts";
import { openDaemon, quitDaemon } from "#cli/daemon-socket.ts";

export async function runQuit(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  if (daemon === undefined) {
    context.output.line("Not connected");
    return 0;
  }
  context.output.progress("Telepresence Daemons quitting...");
  await quitDaemon(context, daemon);
  context.output.line("Telepresence Daemons quitting...done");
  return 0;
}
