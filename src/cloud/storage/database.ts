// What the server asks of a database. SQL is written once for both kinds: `$1` for values, times as milliseconds,
// booleans as 0 and 1, ON CONFLICT and RETURNING, which both have. `database.contract.ts` holds both to this page.

export type SqlValue = string | number | null;
export type Row = Readonly<Record<string, SqlValue>>;

export interface Queries {
  /** The rows of a SELECT, or of RETURNING; the caller names the columns it asked for. */
  all<T extends object = Row>(sql: string, values?: readonly SqlValue[]): Promise<readonly T[]>;
  /** How many rows were changed. */
  run(sql: string, values?: readonly SqlValue[]): Promise<number>;
}

export interface Database extends Queries, AsyncDisposable {
  readonly kind: "sqlite" | "postgres";
  /** All of it or nothing. What is asked of the database itself meanwhile waits, or sees what was before. */
  transaction<T>(work: (queries: Queries) => Promise<T>): Promise<T>;
  /** Statements of a migration; nobody else migrates meanwhile. */
  exclusive<T>(work: (queries: Queries) => Promise<T>): Promise<T>;
}

/** The first row, if there is one. */
export async function one<T extends object = Row>(
  queries: Queries,
  sql: string,
  values: readonly SqlValue[] = [],
): Promise<T | undefined> {
  const [row] = await queries.all<T>(sql, values);
  return row;
}
