// A lock that the kernel gives back when its holder dies, however it dies. Node has no flock(2), but SQLite locks its
// file with fcntl(2), so an exclusive transaction on an empty database is the lock; nothing is ever written to it.
import { DatabaseSync } from "node:sqlite";

/** Undefined when somebody else holds it. Dispose to give it back; the file stays. */
export function tryLock(path: string): Disposable | undefined {
  const database = new DatabaseSync(path);
  try {
    database.exec("PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if (isBusy(error)) return undefined;
    throw error;
  }
  return { [Symbol.dispose]: () => database.isOpen && database.close() };
}

/** SQLITE_BUSY is 5. */
const isBusy = (error: unknown): boolean => (error as { readonly errcode?: unknown }).errcode === 5;
