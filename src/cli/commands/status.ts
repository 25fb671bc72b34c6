// `status`: what the daemons have just checked, of all connections or of the one that --use means. Works, and starts
// nothing, when nothing runs.
import type { CommandContext } from "#cli/context.ts";
import { readLogin } from "#login/credentials.ts";
import { statusLimitMs } from "#cli/connection/connection.ts";
import { nameOf, runningConnections } from "#cli/connection/connections.ts";
import { openDaemon } from "#cli/connection/daemon-socket.ts";
import { formatLogin, loginToJson } from "#cli/texts/cloud-login.ts";
import { formatStatus, statusToJson } from "#cli/texts/status.ts";
import type { DaemonStatus } from "#wire/control-api.ts";

export async function runStatus(context: CommandContext): Promise<number> {
  const { machine, output } = context;
  const statuses = await askAll(context);
  const login = await readLogin(await machine.openCloudPlaces()).catch(() => undefined); // `login` says why
  const several = statuses.length > 1;
  const reached = statuses.find(({ status }) => status?.cloud !== undefined)?.status?.cloud;
  output.lines([
    ...statuses.flatMap(({ name, status }) => [...(several ? [`Connection ${name}`] : []), ...formatStatus(status)]),
    ...formatLogin(login, reached),
  ]);
  const cloud = loginToJson(login, reached);
  const [only] = statuses;
  const all = statuses.map(({ name, status }) => ({ name, ...statusToJson(status) }));
  // a script that knows of one connection goes on reading the first
  output.data({ ...statusToJson(only?.status), ...(several ? { connections: all } : {}), cloud }, { bare: true });
  return 0;
}

/** The one without a name where nothing runs. */
export async function askAll(
  context: CommandContext,
): Promise<readonly { readonly name: string; readonly status: DaemonStatus | undefined }[]> {
  const { flags, machine } = context;
  const running = flags.use === undefined ? await runningConnections(machine) : [];
  const statuses = await Promise.all(
    (running.length === 0 ? [machine] : running).map(async (each) => {
      using daemon = await openDaemon({ ...context, machine: each });
      return { name: nameOf(each), status: await daemon?.client.call("status", {}, statusLimitMs) };
    }),
  );
  // One that was about to end is no more.
  const there = statuses.filter(({ status }) => status !== undefined);
  return there.length === 0 ? statuses.slice(0, 1) : there;
}
