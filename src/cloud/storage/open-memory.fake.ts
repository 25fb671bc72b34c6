// A migrated database that nobody shares and nothing keeps, for tests.
import { systemClock } from "#base/clock.ts";
import type { Database } from "./database.ts";
import { migrate } from "./migrate.ts";
import { openSqlite } from "./sqlite.ts";

export async function openMemoryDatabase(): Promise<Database> {
  const database = openSqlite(":memory:", systemClock);
  await migrate(database);
  return database;
}
