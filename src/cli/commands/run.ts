// `run -- cmd`: one command, and what it starts, in the cluster's network, by namespaces of its own and without root. A
// connection is made for it if there is none, and goes with the last such command.
import type { CommandContext } from "#cli/context.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { OpenedDaemon } from "#cli/connection/daemon-socket.ts";
import { waitUntilGone } from "#cli/connection/daemon-socket.ts";
import { runForeground } from "#cli/own-command/foreground.ts";
import { requireCommand } from "#cli/own-command/own-command.ts";
import { AppError, isAppError } from "#base/error.ts";

/** chosen: the daemon answers at once. */
const enterLimitMs = 15_000;
/** chosen: a connection is ended in order. */
const leaveLimitMs = 60_000;

export async function runInPrivateNetwork(context: CommandContext, command: readonly string[]): Promise<number> {
  const { machine, environment, interrupts } = context;
  const [file] = command;
  if (file === undefined) throw new AppError("usage", "expected a command after --");
  await requireCommand(file, environment);
  await machine.requirePrivateNetworks(interrupts.signal);
  using connected = await connectIfNeeded(context, { rootless: {} });
  const { client } = connected.daemon;
  const network = await client.call("enter", {}, enterLimitMs);
  const child = { command: await machine.privateCommand(network, command), env: environment.all };
  const endedElsewhere = client.gone.then(() => "the user daemon ended, and the command's network with it");
  try {
    return await runForeground(context, child, { client, undo: "nothing", endedElsewhere });
  } finally {
    await leave(context, connected.daemon);
  }
}

/** The daemon has really left when it says so: the next command is to start another. */
async function leave(context: CommandContext, { client, hello }: OpenedDaemon): Promise<void> {
  try {
    const { quits } = await client.call("leaveEntered", {}, leaveLimitMs);
    if (quits) await waitUntilGone(context, hello.pid);
  } catch (error) {
    if (!isAppError(error, "daemon_unreachable")) throw error;
    await waitUntilGone(context, hello.pid);
  }
}
