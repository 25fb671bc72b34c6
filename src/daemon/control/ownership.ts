// What a command's connection owns ends with it, killed with -9 or not: first its intercept (or whatever else it began), drained while the process
// that serves it still runs, then the user's own command, then the connection to the cluster that was made for it.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { isAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Session } from "#daemon/session.ts";
import type { Supervisor } from "#daemon/supervisor.ts";
import type { PrivateNetwork } from "#daemon/private-networks/door.ts";
import { endProcess } from "#host/process.ts";
import type { OwnedCommand } from "#wire/control-api.ts";
import type { IngestInfo } from "#wire/ingest.ts";
import type { InterceptInfo } from "#wire/manager-api.ts";
import type { OwningCaller } from "./server.ts";

/** chosen: draining an intercept whose command is gone. */
const drainMs = 10_000;
/** chosen: as the CLI itself would wait, from SIGTERM to SIGKILL. */
const graceMs = 5000;

export interface OwnershipOptions {
  readonly supervisor: Pick<Supervisor, "disconnect" | "quit">;
  /** When everything that the connection owned has ended. */
  readonly onGone: () => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Logger;
}

/** An intercept, say: what a command began, and what ends with it. */
export interface Owned {
  readonly name: string;
  /** Resolves when it is over, with why when somebody else ended it; never rejects. */
  readonly ended: Promise<string | undefined>;
  readonly leave: (signal: AbortSignal) => Promise<unknown>;
}

type OwningSession = Pick<Session, "interceptEnded" | "ingestEnded" | "localOnlyEnded" | "leave">;

export function ownedIntercept(session: OwningSession, { spec: { name } }: InterceptInfo): Owned {
  const leave = (signal: AbortSignal): Promise<unknown> => session.leave(name, signal, { only: "intercept" });
  return { name, ended: session.interceptEnded(name), leave };
}

export function ownedIngest(session: OwningSession, info: IngestInfo): Owned {
  const { name, namespace } = info.workload;
  const which = { namespace, container: info.containerName };
  return { name, ended: session.ingestEnded(info), leave: (signal) => session.leave(name, signal, which) };
}

export function ownedLocalOnly(session: OwningSession, name: string): Owned {
  const leave = (signal: AbortSignal): Promise<unknown> => session.leave(name, signal, { only: "local-only" });
  return { name, ended: session.localOnlyEnded(name), leave };
}

/** What one connection owns. */
export class Ownership {
  readonly #options: OwnershipOptions;
  readonly #caller: OwningCaller;
  readonly #owned = new Set<Owned>();
  readonly #networks = new Set<PrivateNetwork>();

  constructor(caller: OwningCaller, options: OwnershipOptions) {
    this.#options = options;
    this.#caller = caller;
    caller.gone.addEventListener("abort", () => void this.#end(caller.command), { once: true });
  }

  /** It ends with the connection, and the caller hears when it ends before. */
  add(owned: Owned): void {
    if (this.#caller.gone.aborted) {
      void this.#leave(owned);
      return;
    }
    this.#owned.add(owned);
    void owned.ended.then((reason) => {
      this.#owned.delete(owned); // one of that name may be somebody else's from here on
      this.#caller.interceptEnded(owned.name, reason);
    });
  }

  /** The network of the connection's own command. */
  enter(network: PrivateNetwork): void {
    this.#networks.add(network);
    if (this.#caller.gone.aborted) void this.leaveEntered();
  }
  async leaveEntered(): Promise<void> {
    const networks = [...this.#networks];
    this.#networks.clear();
    await Promise.all(networks.map((network) => network.end()));
  }

  async #end(command: OwnedCommand | undefined): Promise<void> {
    await Promise.all([...this.#owned].map((owned) => this.#leave(owned)));
    if (command !== undefined) await this.#endCommand(command);
    try {
      await this.leaveEntered();
      await this.#options.onGone();
    } catch (error) {
      this.#options.log.warn("what an orphaned command ran in could not be ended", { error: String(error) });
    }
  }

  async #endCommand(command: OwnedCommand): Promise<void> {
    const { supervisor, clock, log } = this.#options;
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

  async #leave({ name, leave }: Owned): Promise<void> {
    using limit = deadline(this.#options.clock, drainMs, `ending ${name}, whose command is gone`);
    try {
      await leave(limit.signal);
    } catch (error) {
      if (isAppError(error, "intercept_not_found")) return; // somebody else's `leave` was quicker
      this.#options.log.warn("what an orphaned command began could not be ended", { name, error: String(error) });
    }
  }
}
