// SQLite by Node's own module: one file, one connection. Its calls block, and each is a fraction of a millisecond; a
// transaction has the connection for itself, so everything else waits in `#turn`.
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { StatementSync } from "node:sqlite";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Database, Queries, SqlValue } from "./database.ts";

/** SQLITE_CONSTRAINT_UNIQUE and SQLITE_CONSTRAINT_PRIMARYKEY. */
const uniqueCodes: ReadonlySet<unknown> = new Set([2067, 1555]);
/** SQLITE_BUSY. */
const busyCode = 5;
/** chosen: how long another process's transaction is waited for, and how often it is asked. */
const [busyMs, busyStepMs] = [5000, 20];
/** chosen: the server has a few dozen statements; texts are constants, so this is not reached. */
const maxStatements = 500;

/** `:memory:` is a database of its own, for tests. */
export function openSqlite(path: string, clock: Clock): Database {
  try {
    if (path !== ":memory:") provideFile(path);
    const database = new DatabaseSync(path, { timeout: busyStepMs });
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON");
    return new SqliteDatabase(database, clock);
  } catch (cause) {
    throw new AppError("invalid_config", `the database ${path} cannot be opened: ${(cause as Error).message}`, {
      cause,
      hint: "choose a file in a folder that you may write to with --database sqlite:FILE",
    });
  }
}

/** Another connection, also another process's, has what was wanted. */
export function sqliteBusy(error: unknown): boolean {
  return (error as { readonly errcode?: unknown } | undefined)?.errcode === busyCode;
}

/** Nobody else's to read, in whatever folder: it has hashes of passwords, and the key that forms are signed with. */
export function provideFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  closeSync(openSync(path, "a", 0o600)); // SQLite gives its other files the mode of this one
}

class SqliteDatabase implements Database {
  readonly kind = "sqlite";
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #statements = new Map<string, StatementSync>();
  /** Ends when whoever has the connection is finished. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #queries: Queries = {
    all: async <T extends object>(sql: string, values: readonly SqlValue[] = []) =>
      translated(() => this.#prepare(sql).all(named(values)) as unknown as readonly T[]),
    run: async (sql, values = []) => translated(() => Number(this.#prepare(sql).run(named(values)).changes)),
  };

  constructor(database: DatabaseSync, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  all<T extends object>(sql: string, values: readonly SqlValue[] = []): Promise<readonly T[]> {
    return this.#inTurn(() => this.#whenFree(() => this.#prepare(sql).all(named(values)) as unknown as readonly T[]));
  }
  run(sql: string, values: readonly SqlValue[] = []): Promise<number> {
    return this.#inTurn(() => this.#whenFree(() => Number(this.#prepare(sql).run(named(values)).changes)));
  }
  /** IMMEDIATE is exclusive among writers, other processes' too. */
  transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    return this.#inTurn(async () => {
      await this.#whenFree(() => this.#database.exec("BEGIN IMMEDIATE"));
      try {
        const result = await work(this.#queries);
        translated(() => this.#database.exec("COMMIT"));
        return result;
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
        throw error;
      }
    });
  }
  /** Not by SQLite's own waiting, which would hold up the whole process. */
  async #whenFree<T>(work: () => T): Promise<T> {
    const until = this.#clock.now() + busyMs;
    const never = new AbortController().signal;
    for (;;) {
      try {
        return work();
      } catch (cause) {
        if (!sqliteBusy(cause) || this.#clock.now() > until) return translated(() => raise(cause));
        await this.#clock.sleep(busyStepMs, never);
      }
    }
  }
  exclusive<T>(work: (queries: Queries) => Promise<T>): Promise<T> {
    return this.transaction(work);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inTurn(async () => {
      this.#statements.clear();
      if (this.#database.isOpen) this.#database.close();
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined); // its caller has the error
    return result;
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    const statement = this.#database.prepare(sql);
    statement.setAllowUnknownNamedParameters(true);
    if (this.#statements.size >= maxStatements) this.#statements.clear();
    this.#statements.set(sql, statement);
    return statement;
  }
}

/** SQLite takes `$1` for a name. */
function named(values: readonly SqlValue[]): Record<string, SqlValue> {
  return Object.fromEntries(values.map((value, index) => [`$${index + 1}`, value]));
}

function raise(error: unknown): never {
  throw error;
}

function translated<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (uniqueCodes.has((cause as { readonly errcode?: unknown }).errcode)) {
      throw new AppError("conflict", "the database has an entry of this name already", { cause });
    }
    throw new AppError("internal", `the database failed: ${(cause as Error).message}`, { cause });
  }
}
