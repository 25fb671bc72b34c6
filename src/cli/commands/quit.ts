// `quit`: ends intercepts and outbound traffic, then both daemons. Idempotent; says so when there is nothing to end.
import type { CommandContext } from "#cli/context.ts";
import { openDaemon, waitUntilGone } from "#cli/daemon-socket.ts";

/** chosen: intercepts are drained before the answer. */
const quitLimitMs = 60_000;

export async function runQuit(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  if (daemon === undefined) {
    context.output.line("Not connected");
    return 0;
  }
  context.output.progress("Telepresence Daemons quitting...");
  await daemon.client.call("quit", {}, quitLimitMs);
  await waitUntilGone(context, daemon.hello.pid);
  context.output.line("Telepresence Daemons quitting...done");
  return 0;
}
