// What a command's connection owns ends with it, killed with -9 or not: first its intercept, drained while the process
// that serves it still runs, then the user's own command, then the connection to the cluster that was made for it.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Session } from "#daemon/session.ts";
import type { Supervisor } from "#daemon/supervisor.ts";
import { endProcess } from "#host/process.ts";
import type { OwnedCommand } from "#wire/control-api.ts";
import type { OwningCaller } from "./server.ts";

/** chosen: draining an intercept whose command is gone. */
const drainMs = 10_000;
/** chosen: as the CLI itself would wait, from SIGTERM to SIGKILL. */
const graceMs = 5000;

export interface OwnershipOptions {
  readonly supervisor: Pick<Supervisor, "disconnect" | "quit">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What one connection owns. */
export class Ownership {
  readonly #options: OwnershipOptions;
  readonly #caller: OwningCaller;
  readonly #intercepts = new Map<string, Session>();

  constructor(caller: OwningCaller, options: OwnershipOptions) {
    this.#options = options;
    this.#caller = caller;
    caller.gone.addEventListener("abort", () => void this.#end(caller.command), { once: true });
  }

  /** The intercept ends with the connection, and the caller hears when it ends before. */
  add(session: Session, name: string): void {
    if (this.#caller.gone.aborted) {
      void this.#endIntercept(session, name);
      return;
    }
    this.#intercepts.set(name, session);
    void session.interceptEnded(name).then((reason) => {
      this.#intercepts.delete(name); // one of that name may be somebody else's from here on
      this.#caller.interceptEnded(name, reason);
    });
  }

  async #end(command: OwnedCommand | undefined): Promise<void> {
    const { supervisor, clock, log } = this.#options;
    await Promise.all([...this.#intercepts].map(([name, session]) => this.#endIntercept(session, name)));
    if (command === undefined) return;
    const { pid, startTicks, leadsGroup, undo } = command;
    log.info("command ended in place of its command line, which is gone", { pid, undo });
    try {
      await endProcess({ pid, startTicks }, { group: leadsGroup, graceMs, clock });
      if (undo === "quit") await supervisor.quit();
      else if (undo === "disconnect") await supervisor.disconnect();
    } catch (error) {
      log.warn("what an orphaned command was connected for could not be undone", { error: String(error) });
    }
  }

  async #endIntercept(session: Session, name: string): Promise<void> {
    using limit = deadline(this.#options.clock, drainMs, "ending an intercept whose command is gone");
    try {
      await session.leave(name, limit.signal);
    } catch (error) {
      if (isAppError(error, "intercept_not_found")) return; // somebody else's `leave` was quicker
      this.#options.log.warn("orphaned intercept could not be ended", { name, error: String(error) });
    }
  }
}
