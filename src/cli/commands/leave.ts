// `leave NAME…`: ends one's own intercepts, drained, and ingests. Starts nothing: without a daemon there is nothing to leave.
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { openDaemon } from "#cli/connection/daemon-socket.ts";
import { readTargetName } from "#cli/flags/target-name.ts";

/** chosen: every agent has to confirm. */
const leaveLimitMs = 60_000;

export interface LeaveFlags {
  readonly container?: string;
}

export async function runLeave(
  context: CommandContext,
  words: readonly string[],
  { container }: LeaveFlags,
): Promise<number> {
  const names = words.map((word) => readTargetName(word).name);
  using daemon = await openDaemon(context);
  if (daemon === undefined || !daemon.hello.connected) {
    throw new AppError("not_connected", `there is no intercept ${names.join(", ")}: telepresence is not connected`, {
      hint: "`telepresence connect` and `telepresence list --intercepts` show what there is",
    });
  }
  const { namespace } = context.flags;
  const left: string[] = [];
  for (const name of names) {
    context.output.progress(`Leaving ${name}`);
    const { warnings = [] } = await daemon.client.call("leave", { name, namespace, container }, leaveLimitMs);
    for (const warning of warnings) context.output.warn(warning);
    left.push(name);
    context.output.data({ left }); // beside the error, when the next one fails
  }
  return 0;
}
