// Which database `--database` names, opened and migrated.
import type { Clock } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { DatabaseChoice } from "#cloud/config.ts";
import type { Database } from "./database.ts";
import { migrate } from "./migrate.ts";
import { openSqlite } from "./sqlite.ts";

export async function openDatabase(
  choice: DatabaseChoice,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Promise<Database> {
  const database =
    choice.kind === "sqlite"
      ? openSqlite(choice.path, clock)
      : await (await import("./postgres.ts")).openPostgres(choice.url, log);
  try {
    const version = await migrate(database);
    log.info("database open", { kind: choice.kind, version });
    return database;
  } catch (error) {
    await database[Symbol.asyncDispose]();
    throw error;
  }
}
