// `revoke NAME|ID`: ends another person's intercept, for those whom the cluster allows it. Asks first on a terminal.
import { isAgreed } from "#cli/agreement.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { suggestKnown } from "#cli/near-workload.ts";
import { formatFilter, printable } from "#cli/texts/filter.ts";
import { interceptToJson } from "#cli/texts/json.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";

/** chosen: every agent has to confirm. */
const revokeLimitMs = 60_000;

export interface RevokeFlags {
  readonly owner?: string;
  readonly yes?: boolean;
}

export async function runRevoke(context: CommandContext, name: string, flags: RevokeFlags): Promise<number> {
  using connected = await connectIfNeeded(context);
  const { client } = connected.daemon;
  const { output } = context;
  const wish = { name, user: flags.owner, namespace: context.flags.namespace };
  const { info } = await client.call("revoke", { ...wish, find: true }, revokeLimitMs).catch((error: unknown) => {
    throw suggestKnown(error, name);
  });
  if (flags.yes !== true && !(await isAgreed(context, describe(info)))) {
    output.line("Nothing was ended");
    return 1;
  }
  output.progress(`Ending the intercept ${info.spec.name} of ${info.client}`);
  // By its id: what was shown is what ends.
  const revoked = await client.call("revoke", { name: info.id, find: false }, revokeLimitMs);
  output.line(`Ended ${describe(revoked.info)}`);
  output.data(interceptToJson(revoked.info));
  return 0;
}

function describe({ spec, client, createdAtMs }: InterceptInfo): string {
  const { kind, name } = spec.workload;
  const which = formatFilter(spec.filter);
  const what = `the intercept ${spec.name} of ${client} on ${kind} ${name}${which === "" ? "" : `, ${which}`}`;
  return printable(`${what}, since ${new Date(createdAtMs).toISOString()}`);
}
