// A random id of this installation, kept in the cache directory, so that a manager knows a returning laptop. Each
// connection with a name has its own: two of one laptop are two laptops to a manager.
import { randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** The id that is kept, or a new one; a directory that cannot be written gives a new one each time. */
export function readInstallId(cacheDirectory: string, connection: string | undefined): string {
  const path = join(cacheDirectory, connection === undefined ? "install-id" : `install-id.${connection}`);
  try {
    const kept = readFileSync(path, "utf8").trim();
    if (/^[0-9a-f-]{36}$/.test(kept)) return kept;
  } catch {
    // not there yet
  }
  const id = randomUUID();
  try {
    writeFileSync(path, `${id}\n`, { mode: 0o600 });
  } catch {
    // read-only home: the manager will take each daemon for a new laptop, which only costs the old session's grace
  }
  return id;
}
