// `ingest WORKLOAD [--container C] [-- cmd]`: environment and files of a container, and no traffic. With a command it
// ends with the command, as an intercept does.
import type { Connected } from "#cli/connection/connection.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { readAgentMode } from "#cli/flags/intercept-flags.ts";
import { suggestWorkload } from "#cli/near-workload.ts";
import { requireCommand } from "#cli/own-command/own-command.ts";
import { leaveOwned, runOwning, type Owned } from "#cli/own-command/owned.ts";
import {
  checkBelongingsFlags,
  checkBelongingsPlaces,
  completeEnvironment,
  readPodWants,
  reportDetail,
  tellProgram,
  writeEnvironmentFiles,
  type Belongings,
  type BelongingsFlags,
} from "#cli/pod-belongings.ts";
import { readTargetName } from "#cli/flags/target-name.ts";
import { formatIngest, ingestDetailToJson } from "#cli/texts/ingest.ts";
import type { IngestInfo } from "#wire/ingest.ts";

export interface IngestFlags extends BelongingsFlags {
  readonly agent?: string;
}

/** chosen: volumes are copied, and an agent may have to come. */
const ingestLimitMs = 300_000;

interface Established extends Belongings {
  readonly info: IngestInfo;
}

export async function runIngest(
  context: CommandContext,
  text: string,
  flags: IngestFlags,
  command: readonly string[],
): Promise<number> {
  const { name, kind } = readTargetName(text);
  for (const warning of checkBelongingsFlags(flags)) context.output.warn(warning);
  await checkBelongingsPlaces(flags, context.environment.cwd);
  const agent = readAgentMode(flags.agent, undefined);
  const [file, ...args] = command;
  if (file !== undefined) await requireCommand(file, context.environment);
  using connected = await connectIfNeeded(context);
  const { namespace } = context.flags;
  const wish = { name, kind, namespace, agent, container: flags.container };
  const established = await establish(context, connected, wish, { flags, owned: file !== undefined }).catch(
    async (error: unknown) => {
      throw await suggestWorkload(connected.daemon.client, error, { name, namespace });
    },
  );
  const { info, environment } = established;
  try {
    await writeEnvironmentFiles(context, { environment, workload: info.workload }, flags);
  } catch (error) {
    await leaveOwned(context, connected.daemon.client, ownedOf(info));
    throw error;
  }
  report(context, established, flags);
  return file === undefined ? 0 : await runWithChild(context, connected, established, [file, ...args]);
}

async function establish(
  context: CommandContext,
  { daemon, config }: Connected,
  wish: Pick<Parameters<typeof daemon.client.call<"ingest">>[1], "name" | "kind" | "namespace" | "agent" | "container">,
  { flags, owned }: { readonly flags: IngestFlags; readonly owned: boolean },
): Promise<Established> {
  const { info, environment, volumes, warnings } = await daemon.client.call(
    "ingest",
    { ...wish, ownedByConnection: owned, ...readPodWants(flags, context.environment.cwd, owned) },
    config.interceptTimeoutMs ?? ingestLimitMs,
  );
  for (const warning of warnings) context.output.warn(warning);
  const told = tellProgram(info.containerName, volumes);
  return { info, volumes, environment: completeEnvironment(environment, told, flags) };
}

function report({ output }: CommandContext, { info, ...belongings }: Established, flags: IngestFlags): void {
  output.line(`Using ${info.workload.kind} ${info.workload.name}`);
  output.lines(formatIngest(info));
  reportDetail(output, flags, ingestDetailToJson(info, belongings));
}

async function runWithChild(
  context: CommandContext,
  connected: Connected,
  { info, environment, volumes }: Established,
  command: readonly [string, ...string[]],
): Promise<number> {
  const env = { ...context.environment.all, ...(environment ?? tellProgram(info.containerName, volumes)) };
  return await runOwning(context, connected.daemon.client, ownedOf(info), { command, env });
}

function ownedOf({ workload: { name, namespace }, containerName: container }: IngestInfo): Owned {
  return { what: `the ingest of ${name}`, params: { name, namespace, container } };
}
