// Holds the daemon's one cluster session and answers the CLI's calls. Calls that change which session there is run one
// after the other; the rest use the session that stands.
import { linkSignals } from "#base/abort.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { softwareVersion } from "#base/version.ts";
import type { connectOptionsSchema, controlApi, DaemonStatus } from "#wire/control-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import type { z } from "zod";
import type { Caller } from "./control/server.ts";
import type { Session } from "./session.ts";

type ConnectOptions = z.infer<typeof connectOptionsSchema>;

export interface SupervisorOptions {
  /** Makes a whole session or nothing: on failure every step is undone before it rejects. */
  readonly openSession: (
    options: ConnectOptions,
    caller: Caller,
    signal: AbortSignal,
  ) => Promise<{ session: Session; installed: boolean }>;
  readonly uninstall: (
    params: ParamsOf<typeof controlApi, "uninstall">,
    session: Session | undefined,
    caller: Caller,
  ) => Promise<ResultOf<typeof controlApi, "uninstall">>;
  /** What `--context`, `--namespace` and the rest come down to, for comparing with the session that stands. */
  readonly identify: (options: ConnectOptions) => Promise<string>;
  readonly helperRunning: () => boolean;
  /** How many programs are in networks of their own. */
  readonly programs: () => number;
  readonly installId: string;
  /** Of the connection, where it has one. */
  readonly name?: string | undefined;
  readonly executable: string;
  /** Ends the daemon after the answer has gone out. */
  readonly shutDown: () => void;
  readonly log: Logger;
}

export class Supervisor implements AsyncDisposable {
  readonly #options: SupervisorOptions;
  #session: { readonly session: Session; readonly identity: string; readonly options: ConnectOptions } | undefined;
  /** Why the last session ended without being asked to. */
  #ended: AppError | undefined;
  /** End each `connect` that is under way or waits for its turn. */
  readonly #connecting = new Set<AbortController>();
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  hello(): ResultOf<typeof controlApi, "hello"> {
    return {
      version: softwareVersion,
      pid: process.pid,
      executable: this.#options.executable,
      installId: this.#options.installId,
      connected: this.#session !== undefined,
      helperRunning: this.#options.helperRunning(),
    };
  }

  async connect(options: ConnectOptions, caller: Caller): Promise<ResultOf<typeof controlApi, "connect">> {
    const giveUp = new AbortController();
    using either = linkSignals(giveUp.signal, caller.gone);
    const { signal } = either;
    this.#connecting.add(giveUp);
    try {
      return await this.#connect(options, caller, signal);
    } finally {
      this.#connecting.delete(giveUp);
    }
  }

  #connect(
    options: ConnectOptions,
    caller: Caller,
    signal: AbortSignal,
  ): Promise<ResultOf<typeof controlApi, "connect">> {
    return this.#exclusive(async () => {
      signal.throwIfAborted(); // while it waited
      const standing = this.#session;
      const identity = await this.#options.identify(
        standing === undefined ? options : withStanding(options, standing.options),
      );
      if (standing !== undefined && standing.identity === identity) {
        const { installed, warnings } = await standing.session.restore(caller.progress, signal);
        const { connection } = standing.session;
        return { fresh: false, installedManager: installed, connection, warnings: [...warnings] };
      }
      if (standing !== undefined) {
        const { context, namespace } = standing.session.connection;
        throw new AppError(
          "already_connected_elsewhere",
          `telepresence is connected to context ${context}, namespace ${namespace}, with other settings`,
          { hint: "give this one a name with --name to have both, or run `telepresence quit` and connect again" },
        );
      }
      const { session, installed } = await this.#options.openSession(options, caller, signal);
      this.#session = { session, identity, options };
      this.#ended = undefined;
      void session.ended.then((reason) => this.#onEnded(session, reason));
      return { fresh: true, installedManager: installed, connection: session.connection, warnings: session.warnings };
    });
  }

  /** Every `connect` that was asked for before gives up first. */
  disconnect(): Promise<{ wasConnected: boolean }> {
    const reason = new AppError("cancelled", "connecting was given up because of `telepresence quit`");
    for (const giveUp of this.#connecting) giveUp.abort(reason);
    return this.#exclusive(async () => {
      const standing = this.#session;
      this.#session = undefined;
      this.#ended = undefined;
      await standing?.session[Symbol.asyncDispose]();
      return { wasConnected: standing !== undefined };
    });
  }

  async quit(): Promise<{ wasConnected: boolean }> {
    try {
      return await this.disconnect();
    } finally {
      this.#options.shutDown(); // what could not be undone in order goes with the process
    }
  }

  /** A connection for programs of `run` alone ends with the last of them, and this daemon. True when that was so. */
  endUnused(): Promise<boolean> {
    return this.#exclusive(async () => {
      const standing = this.#session;
      if (standing === undefined || this.#connecting.size > 0 || this.#options.programs() > 0) return false;
      const { connection, isIdle } = standing.session;
      if (!isIdle || connection.rootless === undefined || connection.proxy !== undefined) return false;
      this.#session = undefined;
      await standing.session[Symbol.asyncDispose]();
      this.#options.shutDown();
      return true;
    });
  }

  async status(signal: AbortSignal): Promise<DaemonStatus> {
    const { installId, executable, name } = this.#options;
    const count = this.#options.programs();
    const programs = count === 0 ? {} : { programs: count };
    const daemon = { version: softwareVersion, executable, installId, name, pid: process.pid, ...programs };
    if (this.#session !== undefined) return { ...daemon, ...(await this.#session.session.status(signal)) };
    const problem = this.#ended === undefined ? {} : { problem: this.#ended.message };
    return { ...daemon, state: "Not connected", intercepts: [], ...problem };
  }

  async uninstall(
    params: ParamsOf<typeof controlApi, "uninstall">,
    caller: Caller,
  ): Promise<ResultOf<typeof controlApi, "uninstall">> {
    const result = await this.#options.uninstall(params, this.#session?.session, caller);
    if (params.mode === "everything") await this.disconnect();
    return result;
  }

  get session(): Session | undefined {
    return this.#session?.session;
  }

  /** The session that stands, or the error that tells how to get one. */
  require(): Session {
    if (this.#session !== undefined) return this.#session.session;
    const why = this.#ended === undefined ? "" : ` (${this.#ended.message})`;
    throw new AppError("not_connected", `telepresence is not connected${why}`, {
      hint: "run `telepresence connect`",
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.disconnect();
  }

  #onEnded(session: Session, reason: AppError): void {
    if (this.#session?.session !== session) return;
    this.#session = undefined;
    this.#ended = reason;
    this.#options.log.error("session ended", { reason: reason.message });
    void this.#exclusive(() => session[Symbol.asyncDispose]()).catch((error: unknown) => {
      this.#options.log.error("session could not be undone", { error: String(error) });
    });
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#last.then(work, work);
    this.#last = run.catch(() => undefined); // its caller has the error
    return run;
  }
}

/** A command that only needs some connection says what it means; all else is no other wish. */
function withStanding(options: ConnectOptions, standing: ConnectOptions): ConnectOptions {
  const { kube, meant } = options;
  if (meant === undefined) return options;
  const named = Object.entries(options).filter(([name]) => meant.includes(name));
  return { ...standing, ...Object.fromEntries(named), kube };
}
