// `version`: of the client and of whatever runs. Enveloped as text with --output, as 2.20 does.
import { softwareVersion } from "#base/version.ts";
import type { CommandContext } from "#cli/context.ts";
import { statusLimitMs } from "#cli/connection.ts";
import { openDaemon } from "#cli/daemon-socket.ts";
import { formatVersion, versionToJson } from "#cli/texts/status.ts";

export async function runVersion(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  context.output.lines(formatVersion(softwareVersion, status));
  if (context.output.mode.kind === "object") context.output.data(versionToJson(softwareVersion, status));
  return 0;
}
