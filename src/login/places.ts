// Where this user's login is kept: a file, the desktop's keyring where there is one, and a lock.
import { dirname, join } from "node:path";
import { systemClock } from "#base/clock.ts";
import { replaceFile } from "#host/atomic-folder.ts";
import { mayHaveKeyring, openKeyring } from "#host/keyring.ts";
import { ensureRuntimeDirectory, hostPaths } from "#host/paths.ts";
import { tryLock } from "#host/lock.ts";
import type { LoginPlaces } from "./credentials.ts";

export function openLoginPlaces(environment: Readonly<Record<string, string | undefined>>): LoginPlaces {
  const { config, runtime } = hostPaths(environment);
  const file = join(config, "cloud.json");
  return {
    file,
    keyring: mayHaveKeyring(environment) ? openKeyring(definedOf(environment), systemClock) : undefined,
    replaceFile: (text) =>
      replaceFile(file, { data: Buffer.from(text), executable: false }, `look at who may write to ${dirname(file)}`),
    tryLock: async () => {
      ensureRuntimeDirectory(runtime);
      return tryLock(join(runtime, "cloud.lock"));
    },
  };
}

function definedOf(environment: Readonly<Record<string, string | undefined>>): Readonly<Record<string, string>> {
  const known = Object.entries(environment).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(known);
}
