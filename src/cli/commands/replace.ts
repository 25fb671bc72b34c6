// `replace WORKLOAD [-- cmd]`: an intercept of all the ports of a container that does not run meanwhile. Its place is the
// laptop's process's: a consumer of a queue, for one, must not run twice.
import type { CommandContext } from "#cli/context.ts";
import { choosesRequests } from "#cli/flags/intercept-filter.ts";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";
import { refuseForReplacement } from "#cli/flags/replace-flags.ts";
import { runIntercept } from "./intercept.ts";

export async function runReplace(
  context: CommandContext,
  name: string,
  flags: InterceptFlags,
  command: readonly string[],
): Promise<number> {
  refuseForReplacement(flags, choosesRequests(flags));
  // The application's own health is nobody's while it does not run.
  const { probes = "agent" } = flags;
  return await runIntercept(context, name, { ...flags, probes, agent: "sidecar", attachment: "replace" }, command);
}
