// One server works on a SQLite file, for the reasons of sole-server.ts. Whoever works has a lock on a file beside it, of
// the kind that SQLite itself uses: the kernel takes it back however the process ends. The second waits for the first
// one's end, as when it is restarted, and then gives up.
import { realpathSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { Clock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import { provideFile, sqliteBusy } from "./sqlite.ts";

/** chosen: how often the lock is asked for; how long another server's end is waited for, which has 10 s for its requests. */
const [askMs, waitMs] = [250, 12_000];

/** Resolves when the file is this server's; throws a conflict when another one keeps it. */
export async function claimSqlite(
  path: string,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): Promise<AsyncDisposable> {
  const lock = openLock(path);
  try {
    const never = new AbortController().signal;
    const endMs = clock.now() + waitMs;
    for (let told = false; !isTaken(lock); told = true) {
      if (clock.now() >= endMs) {
        throw new AppError("conflict", `another cloud server works on the database ${path}`, {
          hint: "end that one, or give this one a database of its own with --database",
        });
      }
      if (!told) log.warn("another cloud server works on this database; waiting for its end", { path, waitMs });
      await clock.sleep(askMs, never);
    }
  } catch (error) {
    lock.close();
    throw error;
  }
  return {
    [Symbol.asyncDispose]: async () => lock.close(), // the file stays: a lock on one that was removed keeps nobody out
  };
}

function openLock(path: string): DatabaseSync {
  try {
    provideFile(path); // it has a real path from now on: by a link to it there is no second lock
    const file = `${realpathSync(path)}-lock`;
    provideFile(file);
    return new DatabaseSync(file, { timeout: 0 });
  } catch (cause) {
    throw new AppError("invalid_config", `the database ${path} cannot be opened: ${(cause as Error).message}`, {
      cause,
      hint: "choose a file in a folder that you may write to with --database sqlite:FILE",
    });
  }
}

function isTaken(lock: DatabaseSync): boolean {
  try {
    lock.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE"); // nothing is ever written, so no journal lies about
    return true;
  } catch (error) {
    if (sqliteBusy(error)) return false;
    throw error;
  }
}
