// `list`: active intercepts first, then the workloads with their state. Connects, and installs, when needed.
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { formatList, selectWorkloads } from "#cli/texts/list.ts";
import { localOnlyToJson, workloadToJson } from "#cli/texts/json.ts";

/** chosen: thousands of workloads on a slow cluster. */
const listLimitMs = 60_000;

export interface ListFlags {
  readonly intercepts?: boolean;
  readonly ingests?: boolean;
  readonly wiretaps?: boolean;
  readonly replacements?: boolean;
  readonly agents?: boolean;
  /** On unless it is switched off. */
  readonly onlyInterceptable?: boolean;
  readonly debug?: boolean;
}

export async function runList(context: CommandContext, flags: ListFlags): Promise<number> {
  using connected = await connectIfNeeded(context);
  const { namespace } = context.flags;
  context.output.progress("Reading workloads");
  const {
    workloads,
    localOnly = [],
    warnings,
  } = await connected.daemon.client.call("list", { namespace }, listLimitMs);
  for (const warning of warnings) context.output.warn(warning);
  const interceptsOnly = flags.intercepts === true;
  const ingestsOnly = flags.ingests === true;
  const wiretapsOnly = flags.wiretaps === true;
  const replacementsOnly = flags.replacements === true;
  const selected = selectWorkloads(workloads, {
    interceptsOnly,
    ingestsOnly,
    wiretapsOnly,
    replacementsOnly,
    agentsOnly: flags.agents === true,
    interceptableOnly: flags.onlyInterceptable !== false,
  });
  const shown = { debug: flags.debug === true, interceptsOnly, ingestsOnly, wiretapsOnly, replacementsOnly };
  const withoutWorkload = ingestsOnly || wiretapsOnly || replacementsOnly || flags.agents === true ? [] : localOnly;
  context.output.lines(withoutWorkload.map(({ name }) => `${name}: local-only intercept`));
  if (selected.length > 0 || withoutWorkload.length === 0) context.output.lines(formatList(selected, shown));
  context.output.data([...withoutWorkload.map(localOnlyToJson), ...selected.map(workloadToJson)]);
  return 0;
}
