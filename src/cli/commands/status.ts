// `status`: what the daemon has just checked. Works, and starts nothing, when nothing runs.
import type { CommandContext } from "#cli/context.ts";
import { statusLimitMs } from "#cli/connection.ts";
import { openDaemon } from "#cli/daemon-socket.ts";
import { formatStatus, statusToJson } from "#cli/texts/status.ts";

export async function runStatus(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  context.output.lines(formatStatus(status));
  context.output.data(statusToJson(status), { bare: true });
  return 0;
}
