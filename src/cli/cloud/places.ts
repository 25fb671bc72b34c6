// The laptop's part of a login and of previews, by way of host/.
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import type { CliEnvironment } from "#cli/config.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { replaceFile } from "#host/atomic-folder.ts";
import { hasBrowser, openBrowser } from "#host/browser.ts";
import { hostPaths } from "#host/paths.ts";
import { currentUser, formatUserAtHost } from "#host/user.ts";
import { openLoginPlaces } from "#login/places.ts";

export function openCloudPlaces({ all }: CliEnvironment): CloudPlaces {
  const path = join(hostPaths(all).cache, "ingresses.json");
  return {
    ...openLoginPlaces(all),
    answers: {
      path,
      replace: (text) =>
        replaceFile(path, { data: Buffer.from(text), executable: false }, `look at who may write to ${dirname(path)}`),
    },
    deviceName: formatUserAtHost(currentUser(all), hostname()),
    hasBrowser: hasBrowser(all),
    openBrowser: (url) => openBrowser(url, all),
  };
}
