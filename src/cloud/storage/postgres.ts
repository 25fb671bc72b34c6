// PostgreSQL by `pg`: a small pool, a limit on every wait. Loaded only when --database asks for it.
import pg from "pg";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { Database, Queries, SqlValue } from "./database.ts";

/** Class 23, unique_violation. */
const uniqueViolation = "23505";
/** Type of bigint; times are milliseconds, far below 2^53. */
const int8 = 20;
/** chosen: for one server; PostgreSQL allows 100 by default. */
const maxConnections = 10;
/** chosen. */
const [connectMs, statementMs, idleMs] = [5000, 15_000, 60_000];
/** chosen: the number that all servers of this product lock while they migrate ("tpcloud" in ASCII does not fit). */
const migrationLock = 7_470_111;

export async function openPostgres(url: string, log: Logger): Promise<Database> {
  const pool = new pg.Pool({
    connectionString: url,
    max: maxConnections,
    connectionTimeoutMillis: connectMs,
    statement_timeout: statementMs,
    idle_in_transaction_session_timeout: statementMs,
    idleTimeoutMillis: idleMs,
    application_name: "telepresence-cloud",
    types: { getTypeParser: typeParser },
  });
  // an idle connection that breaks is replaced at the next query
  pool.on("error", (error) => log.warn("a database connection was lost", { error: error.message }));
  try {
    await pool.query("SELECT 1");
  } catch (cause) {
    await pool.end();
    throw unreachable(cause);
  }
  return new PostgresDatabase(pool);
}

export function unreachable(cause: unknown): AppError {
  return new AppError("unreachable", `the database does not answer: ${(cause as Error).message}`, {
    cause,
    hint: "check --database postgres://USER@HOST/NAME, and that PostgreSQL runs there",
  });
}

const typeParser = ((oid: number, format?: "text" | "binary") =>
  oid === int8 ? Number : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser;

class PostgresDatabase implements Database {
  readonly kind = "postgres";
  readonly #pool: pg.Pool;
  readonly #queries: Queries;

  constructor(pool: pg.Pool) {
    this.#pool = pool;
    this.#queries = queriesOf(pool);
  }

  all<T extends object>(sql: string, values: readonly SqlValue[] = []): Promise<readonly T[]> {
    return this.#queries.all<T>(sql, values);
  }
  run(sql: string, values: readonly SqlValue[] = []): Promise<number> {
    return this.#queries.run(sql, values);
  }
  async transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    const client = await connect(this.#pool);
    let broken: Error | undefined;
    try {
      await client.query("BEGIN");
      const result = await work(queriesOf(client));
      await client.query("COMMIT");
      return result;
    } catch (error) {
      await client.query("ROLLBACK").catch((cause: Error) => (broken = cause));
      throw error;
    } finally {
      client.release(broken);
    }
  }
  /** The lock goes with the transaction, however it ends. */
  exclusive<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    return this.transaction(async (queries) => {
      await queries.all(`SELECT pg_advisory_xact_lock(${migrationLock})`);
      return work(queries);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end();
  }
}

async function connect(pool: pg.Pool): Promise<pg.PoolClient> {
  try {
    return await pool.connect();
  } catch (cause) {
    throw translate(cause);
  }
}

function queriesOf(client: pg.Pool | pg.PoolClient): Queries {
  const query = async (sql: string, values: readonly SqlValue[] = []) => {
    try {
      return await client.query<Record<string, SqlValue>>(sql, [...values]);
    } catch (cause) {
      throw translate(cause);
    }
  };
  return {
    all: async <T extends object>(sql: string, values?: readonly SqlValue[]) =>
      (await query(sql, values)).rows as unknown as readonly T[],
    run: async (sql, values) => (await query(sql, values)).rowCount ?? 0,
  };
}

function translate(cause: unknown): AppError {
  if ((cause as { readonly code?: unknown }).code === uniqueViolation) {
    return new AppError("conflict", "the database has an entry of this name already", { cause });
  }
  return new AppError("internal", `the database failed: ${(cause as Error).message}`, { cause });
}
