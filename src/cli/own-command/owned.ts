// What a command began and owns, an intercept say, with the user's own command that runs for its sake: it ends with that
// command, and the command with it.
import { toAppError } from "#base/error.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import type { CommandContext } from "#cli/context.ts";
import type { DaemonClient } from "#cli/connection/daemon-client.ts";
import { runForeground } from "./foreground.ts";
import type { ForegroundCommand } from "#cli/machine.ts";

export interface Owned {
  /** `the intercept hello` */
  readonly what: string;
  /** How it is left. */
  readonly params: ParamsOf<typeof controlApi, "leave">;
}

/** chosen: every agent has to confirm. */
const leaveLimitMs = 60_000;

/** Runs the command to its end, and gives its exit code. */
export async function runOwning(
  context: CommandContext,
  client: DaemonClient,
  owned: Owned,
  command: ForegroundCommand,
): Promise<number> {
  const watch = watchEnd(client, owned.what);
  try {
    return await runForeground(context, command, { client, undo: "nothing", endedElsewhere: watch.reason });
  } finally {
    if (!watch.ended) await leaveOwned(context, client, owned);
  }
}

/** In order, so that no request fails; if it cannot be, it still ends with this connection. */
export async function leaveOwned(
  { output }: CommandContext,
  client: DaemonClient,
  { what, params }: Owned,
): Promise<void> {
  try {
    const { warnings = [] } = await client.call("leave", params, leaveLimitMs);
    for (const warning of warnings) output.warn(warning);
  } catch (error) {
    const { code, message } = toAppError(error);
    if (code !== "intercept_not_found") output.warn(`${what} was not ended in order: ${message}`);
  }
}

interface EndWatch {
  /** Resolves when it was ended by somebody else (`leave`, `quit`, a lost daemon), with how; never rejects. */
  readonly reason: Promise<string>;
  readonly ended: boolean;
}

function watchEnd(client: DaemonClient, what: string): EndWatch {
  const state = { ended: false };
  const end = (reason: string): string => {
    state.ended = true;
    return reason;
  };
  const gone = client.gone.then(() => `the user daemon ended, and ${what} with it`);
  const left = client.interceptEnded.then((why) => why ?? `${what} was ended by another command`);
  return {
    reason: Promise.race([left, gone]).then(end),
    get ended() {
      return state.ended;
    },
  };
}
