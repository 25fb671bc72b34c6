// The laptop's part of a login, by way of host/.
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { systemClock } from "#base/clock.ts";
import type { CliEnvironment } from "#cli/config.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { replaceFile } from "#host/atomic-folder.ts";
import { hasBrowser, openBrowser } from "#host/browser.ts";
import { mayHaveKeyring, openKeyring } from "#host/keyring.ts";
import { hostPaths } from "#host/paths.ts";
import { currentUser, formatUserAtHost } from "#host/user.ts";

export function openCloudPlaces(
  { all }: CliEnvironment,
  lock: (name: string) => Promise<Disposable | undefined>,
): CloudPlaces {
  const file = join(hostPaths(all).config, "cloud.json");
  return {
    file,
    keyring: mayHaveKeyring(all) ? openKeyring(all, systemClock) : undefined,
    deviceName: formatUserAtHost(currentUser(all), hostname()),
    hasBrowser: hasBrowser(all),
    openBrowser: (url) => openBrowser(url, all),
    replaceFile: (text) =>
      replaceFile(file, { data: Buffer.from(text), executable: false }, `look at who may write to ${dirname(file)}`),
    tryLock: () => lock("cloud.lock"),
  };
}
