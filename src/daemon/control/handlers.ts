// The control API's methods, a few lines each: what they do lives in the supervisor and its session.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Session } from "#daemon/session.ts";
import type { Supervisor } from "#daemon/supervisor.ts";
import type { Handlers } from "#tunnel/rpc.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { Caller } from "./server.ts";

/** chosen: draining an intercept whose command is gone. */
const orphanTimeoutMs = 10_000;

/** The handlers of one command's connection. */
export function createHandlers(
  supervisor: Supervisor,
  clock: Clock,
  log: Logger,
): (caller: Caller) => Handlers<typeof controlApi> {
  return (caller) => ({
    hello: () => supervisor.hello(),
    connect: (params) => supervisor.connect(params, caller),
    disconnect: () => supervisor.disconnect(),
    status: (_params, signal) => supervisor.status(signal),
    list: ({ namespace }, signal) => supervisor.require().list(namespace, signal),
    intercept: async (params, signal) => {
      const session = supervisor.require();
      const result = await session.intercept(params, caller.progress, signal);
      if (params.ownedByConnection) onceAborted(caller.gone, () => void endOrphan(session, result.info.id, clock, log));
      return result;
    },
    leave: async ({ name, namespace }, signal) => {
      await supervisor.require().leave(name, signal, namespace);
      return {};
    },
    quit: () => supervisor.quit(),
    uninstall: (params) => supervisor.uninstall(params, caller),
  });
}

/** The command that owned the intercept ended without `leave`, killed perhaps. */
async function endOrphan(session: Session, id: string, clock: Clock, log: Logger): Promise<void> {
  const own = session.intercepts.find((info) => info.id === id);
  if (own === undefined) return;
  using limit = deadline(clock, orphanTimeoutMs, "ending an intercept whose command is gone");
  try {
    await session.leave(own.spec.name, limit.signal);
  } catch (error) {
    if (isAppError(error, "intercept_not_found")) return; // somebody else's `leave` was quicker
    log.warn("orphaned intercept could not be ended", { id, error: String(error) });
  }
}

function onceAborted(signal: AbortSignal, action: () => void): void {
  if (signal.aborted) action();
  else signal.addEventListener("abort", action, { once: true });
}
