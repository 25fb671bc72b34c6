// `connect [-- cmd]`: without a command, connected until `quit`; with one, for as long as it runs, and then exactly
// what this call started is undone.
import { toAppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import type { Connected } from "#cli/connection/connection.ts";
import { connect } from "#cli/connection/connection.ts";
import { quitDaemon } from "#cli/connection/daemon-socket.ts";
import { runForeground } from "#cli/own-command/foreground.ts";
import { requireCommand } from "#cli/own-command/own-command.ts";
import { formatProxy, proxyEnvironment } from "#cli/texts/proxy.ts";

/** chosen: disconnecting drains intercepts first. */
const undoLimitMs = 60_000;

export async function runConnect(context: CommandContext, command: readonly string[]): Promise<number> {
  const [file, ...args] = command;
  if (file !== undefined) await requireCommand(file, context.environment);
  using connected = await connect(context, "result");
  const { client, started } = connected.daemon;
  if (file === undefined) {
    for (const line of formatProxy(connected.connection)) context.output.line(line);
    return 0;
  }
  try {
    const undone = started ? "quit" : connected.fresh ? "disconnect" : "nothing";
    return await runForeground(
      context,
      { command: [file, ...args], env: { ...context.environment.all, ...proxyEnvironment(connected.connection) } },
      { client, undo: undone },
    );
  } finally {
    await undo(context, connected);
  }
}

async function undo(context: CommandContext, { daemon, fresh }: Connected): Promise<void> {
  try {
    if (daemon.started) await quitDaemon(context, daemon);
    else if (fresh) await daemon.client.call("disconnect", {}, undoLimitMs);
  } catch (error) {
    context.output.warn(`the connection could not be undone: ${toAppError(error).message}; run \`telepresence quit\``);
  }
}
