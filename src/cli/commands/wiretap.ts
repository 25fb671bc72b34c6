// `wiretap NAME --port L[:svcport] [-- cmd]`: an intercept in everything but what it does to the traffic, which is copied.
import type { CommandContext } from "#cli/context.ts";
import type { InterceptFlags } from "#cli/flags/intercept-flags.ts";
import { refuseMeaningless } from "#cli/flags/wiretap-flags.ts";
import { runIntercept } from "./intercept.ts";

export async function runWiretap(
  context: CommandContext,
  name: string,
  flags: InterceptFlags,
  command: readonly string[],
): Promise<number> {
  refuseMeaningless(flags);
  return await runIntercept(context, name, { ...flags, attachment: "wiretap" }, command);
}
