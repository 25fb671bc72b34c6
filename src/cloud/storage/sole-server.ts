// One server works on a PostgreSQL database: managers' tunnels and logins under way are in its memory, so a second one would
// show half of everything. Whoever works holds an advisory lock by a connection of its own, and PostgreSQL takes that back
// however the process ends. It is a lock of a transaction that stays open, because a pooler (PgBouncer) gives away, between
// transactions, the connection that a lock of a session would be held by. The second waits for the first one's end, as when a Deployment is replaced, and then gives up.
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import pg from "pg";
import type { Clock, Timer } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { unreachable } from "./postgres.ts";

/** chosen; the second half of the lock is the schema, so that servers may share a PostgreSQL. */
const lockClass = 7_470_112;
/**
 * chosen: how often a lock is asked for; how long another server's end is waited for, which has 10 s for its requests and, where its
 * machine is gone, is given up by PostgreSQL after 20 s; how often the connection is tried that holds the lock.
 */
const [askMs, waitMs, watchMs] = [500, 45_000, 10_000];
/** chosen. */
const queryMs = 5000;
/**
 * Of the transaction. The name by which it is known again: an address may have another one. Where this machine is gone without a
 * word, PostgreSQL finds out. No limit ends what lasts (the second is there since PostgreSQL 17).
 */
const settings = `SELECT set_config('application_name', $1, true), set_config('tcp_keepalives_idle', '5', true),
  set_config('tcp_keepalives_interval', '5', true), set_config('tcp_keepalives_count', '3', true),
  (SELECT count(set_config(name, '0', true)) FROM pg_settings
   WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout'))`;

export interface SoleServerOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** Another server has taken the database while it was out of reach for this one, which has to end. */
  readonly onLost: (error: AppError) => void;
}

export interface PostgresClaim extends AsyncDisposable {
  /** False while the connection with the lock is lost, and for good when another server has taken the database. */
  readonly holds: boolean;
}

/** Resolves when the database is this server's. */
export async function claimPostgres(url: string, options: SoleServerOptions): Promise<PostgresClaim> {
  const claim = new Claim(url, options);
  try {
    await claim.take();
  } catch (error) {
    await claim[Symbol.asyncDispose]();
    throw error;
  }
  return claim;
}

class Claim implements PostgresClaim {
  readonly #url: string;
  readonly #options: SoleServerOptions;
  /** Told to the other one; unlike any other server's, also of the same host. */
  readonly #name = `telepresence-cloud ${randomBytes(4).toString("hex")} ${hostname()}`.slice(0, 63);
  readonly #over = new AbortController();
  readonly #watch: Timer;
  #client: pg.Client | undefined;
  #holds = false;

  constructor(url: string, options: SoleServerOptions) {
    this.#url = url;
    this.#options = options;
    this.#watch = options.clock.every(watchMs, () => this.#look()).unref();
  }

  get holds(): boolean {
    return this.#holds;
  }

  async take(): Promise<void> {
    const { clock, log } = this.#options;
    const endMs = clock.now() + waitMs;
    for (let other = ""; ;) {
      const answer = await this.#ask().catch((cause: unknown) => {
        throw unreachable(cause);
      });
      if (answer === undefined) return;
      if (clock.now() >= endMs) {
        throw new AppError("conflict", `another cloud server works on this database (${other})`, {
          hint: "end that one, or give this one a database of its own with --database",
        });
      }
      if (answer !== "" && other === "") {
        log.warn("another cloud server works on this database; waiting for its end", { other: answer, waitMs });
      }
      other ||= answer;
      await clock.sleep(askMs, this.#over.signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.abort();
    this.#watch[Symbol.dispose]();
    this.#holds = false;
    await this.#client?.end().catch(() => undefined); // the lock goes with the connection
  }

  /** Who has the lock; undefined when it is this server, "" when it is to be asked again. */
  async #ask(): Promise<string | undefined> {
    const client = (this.#client ??= await this.#connect());
    // Stays open with the lock. It has written nothing, and at this level keeps no snapshot, so it holds no old rows back.
    await client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
    await client.query(settings, [this.#name]);
    const schema = "hashtext(coalesce(current_schema(), ''))"; // where there is none, the first table says so
    const won = await client.query<{ won: boolean }>(
      `SELECT pg_try_advisory_xact_lock(${lockClass}, ${schema}) AS won`,
    );
    // PostgreSQL's last word on the connection, and so on the lock, may come in one piece with the answer.
    if (this.#client !== client) throw new AppError("link_lost", "the connection was lost that would hold the lock");
    this.#holds = won.rows[0]?.won === true;
    if (this.#holds) return undefined;
    const { rows } = await client.query<{ name: string | null; pid: number }>(
      `SELECT application_name AS name, pid FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
       WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = ${lockClass}
         AND objid::bigint = (${schema}::bigint & 4294967295)
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    );
    const [holder] = rows;
    // a connection of ours that broke, and PostgreSQL does not know it yet
    if (holder?.name === this.#name) await client.query("SELECT pg_terminate_backend($1)", [holder.pid]);
    await client.query("ROLLBACK"); // others may have the pooler's connection while this one waits
    if (holder === undefined || holder.name === this.#name) return "";
    return holder.name ?? `process ${holder.pid} of PostgreSQL`; // another role's name is not shown
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: this.#url,
      connectionTimeoutMillis: queryMs,
      query_timeout: queryMs,
    });
    client.on("error", () => this.#lost(client));
    client.on("end", () => this.#lost(client));
    await client.connect();
    if (this.#over.signal.aborted) await client.end(); // meanwhile: nobody would end it later
    this.#over.signal.throwIfAborted();
    return client;
  }

  #look(): void {
    const client = this.#client;
    if (!this.#holds || client === undefined) return;
    client.query("SELECT 1").catch(() => this.#lost(client));
  }

  #lost(client: pg.Client): void {
    if (this.#client !== client) return;
    this.#discard();
    if (!this.#holds) return;
    this.#holds = false;
    this.#options.log.warn("the connection was lost that keeps other servers from the database");
    this.#takeAgain().catch(() => undefined); // this server ends
  }

  #discard(): "" {
    const client = this.#client;
    this.#client = undefined;
    client?.end().catch(() => undefined);
    return "";
  }

  /** As long as the database is away nobody has it. */
  async #takeAgain(): Promise<void> {
    const { clock, log, onLost } = this.#options;
    for (;;) {
      const other = await this.#ask().catch(() => this.#discard());
      if (other === undefined) return log.info("the database is this server's again");
      if (other !== "") {
        onLost(new AppError("conflict", `another cloud server has taken the database over (${other})`));
        return;
      }
      await clock.sleep(askMs, this.#over.signal);
    }
  }
}
