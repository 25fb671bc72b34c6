// `dashboard --local`: a page on this machine that shows the requests of one's own intercepts. Its address lets in
// whoever has it, so it is printed and given to no other program, whose words everybody on the machine can see.
import { AppError } from "#base/error.ts";
import { connectIfNeeded } from "#cli/connection.ts";
import type { CommandContext } from "#cli/context.ts";

/** chosen: the daemon only opens a port. */
const inspectLimitMs = 10_000;

export interface DashboardFlags {
  readonly local?: boolean;
  readonly hide?: readonly string[];
}

export async function runDashboard(context: CommandContext, flags: DashboardFlags): Promise<number> {
  if (flags.local !== true) {
    throw new AppError("unsupported", "the dashboard that a team shares is not available in this version", {
      hint: "`telepresence dashboard --local` shows the requests of your own intercepts, on this machine",
    });
  }
  using connected = await connectIfNeeded(context);
  const { url } = await connected.daemon.client.call("inspect", { hide: [...(flags.hide ?? [])] }, inspectLimitMs);
  const { output } = context;
  output.line("Open this address in your browser; who has it sees the requests of your intercepts:");
  output.line(url);
  output.data({ url });
  return 0;
}
