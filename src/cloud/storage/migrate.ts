// Brings a database to the present schema: each step in the same transaction as its number, one server at a time.
import { AppError } from "#base/error.ts";
import type { Database, Queries } from "./database.ts";
import { one } from "./database.ts";
import { migrations } from "./migrations.ts";

/** Resolves with the number of the last step. A database of a later version is left alone. */
export function migrate(database: Database, steps: readonly (readonly string[])[] = migrations): Promise<number> {
  return database.exclusive(async (queries) => {
    await queries.run("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)");
    const present = await presentVersion(queries);
    if (present > steps.length) {
      throw new AppError(
        "version_mismatch",
        `the database is of version ${present}, and this program knows versions up to ${steps.length}`,
        { hint: "use the newer program, or another database" },
      );
    }
    for (const statement of steps.slice(present).flat()) await queries.run(statement);
    await queries.run("DELETE FROM schema_version");
    await queries.run("INSERT INTO schema_version (version) VALUES ($1)", [steps.length]);
    return steps.length;
  });
}

async function presentVersion(queries: Queries): Promise<number> {
  const row = await one<{ version: number }>(queries, "SELECT version FROM schema_version");
  return row?.version ?? 0;
}
