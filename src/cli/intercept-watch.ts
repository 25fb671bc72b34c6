// Tells when an intercept that this command holds was ended by somebody else: `leave`, `quit`, or a lost daemon.
import { isAppError } from "#base/error.ts";
import type { DaemonStatus } from "#wire/control-api.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { CommandContext } from "./context.ts";
import type { DaemonClient } from "./daemon-client.ts";
import type { EndedElsewhere } from "./foreground.ts";

/** chosen: a local call; `leave` elsewhere ends the child within this. */
const pollMs = 1000;
const pollLimitMs = 10_000;
/** chosen: a session that is being taken up again may not have announced its intercepts yet. */
const missesBeforeEnd = 2;

export interface InterceptWatch extends EndedElsewhere, Disposable {
  readonly ended: boolean;
}

export function watchIntercept(context: CommandContext, client: DaemonClient, info: InterceptInfo): InterceptWatch {
  const stopped = new AbortController();
  const { promise, resolve } = Promise.withResolvers<string>();
  const state = { ended: false };
  const end = (reason: string): void => {
    if (stopped.signal.aborted) return;
    state.ended = true;
    stopped.abort();
    resolve(reason);
  };
  void client.gone.then(() => end(`the user daemon ended, and the intercept ${info.spec.name} with it`));
  void poll(context, client, info, stopped.signal).then((reason) => reason !== undefined && end(reason));
  return {
    reason: promise,
    get ended() {
      return state.ended;
    },
    [Symbol.dispose]: () => stopped.abort(),
  };
}

/** Undefined when nobody wants to know any more, or the daemon is gone. */
async function poll(
  context: CommandContext,
  client: DaemonClient,
  info: InterceptInfo,
  stopped: AbortSignal,
): Promise<string | undefined> {
  for (let misses = 0; misses < missesBeforeEnd;) {
    try {
      await context.clock.sleep(misses === 0 ? pollMs : pollMs / 4, stopped);
      misses = isMissing(await client.call("status", {}, pollLimitMs), info) ? misses + 1 : 0;
    } catch (error) {
      if (!isAppError(error, "timeout")) return undefined;
      misses = 0; // a machine that was asleep or is overloaded is no reason to end anybody's process
    }
  }
  return `the intercept ${info.spec.name} was ended elsewhere`;
}

function isMissing(status: DaemonStatus, info: InterceptInfo): boolean {
  if (status.state === "Reconnecting") return false;
  const own = status.intercepts.find(({ id, spec }) => id === info.id || spec.name === info.spec.name);
  return own === undefined || own.state === "removed";
}
