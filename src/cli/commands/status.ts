// `status`: what the daemon has just checked. Works, and starts nothing, when nothing runs.
import type { CommandContext } from "#cli/context.ts";
import { readLogin } from "#login/credentials.ts";
import { statusLimitMs } from "#cli/connection.ts";
import { openDaemon } from "#cli/daemon-socket.ts";
import { formatLogin, loginToJson } from "#cli/texts/cloud-login.ts";
import { formatStatus, statusToJson } from "#cli/texts/status.ts";

export async function runStatus(context: CommandContext): Promise<number> {
  using daemon = await openDaemon(context);
  const status = await daemon?.client.call("status", {}, statusLimitMs);
  const login = await readLogin(await context.machine.openCloudPlaces()).catch(() => undefined); // `login` says why
  context.output.lines([...formatStatus(status), ...formatLogin(login)]);
  context.output.data({ ...statusToJson(status), cloud: loginToJson(login) }, { bare: true });
  return 0;
}
