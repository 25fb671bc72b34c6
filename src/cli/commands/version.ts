// `version`: of the client and of whatever runs.
import { softwareVersion } from "#base/version.ts";
import type { CommandContext } from "#cli/context.ts";
import { statusLimitMs } from "#cli/connection.ts";
import { openDaemon } from "#cli/daemon-socket.ts";
import { formatVersion, versionToJson } from "#cli/texts/status.ts";

export async function runVersion(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  context.output.lines(formatVersion(softwareVersion, status));
  context.output.data(versionToJson(softwareVersion, status));
  return 0;
}
