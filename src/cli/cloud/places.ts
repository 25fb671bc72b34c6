// The laptop's part of a login, by way of host/.
import { hostname } from "node:os";
import type { CliEnvironment } from "#cli/config.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { hasBrowser, openBrowser } from "#host/browser.ts";
import { currentUser, formatUserAtHost } from "#host/user.ts";
import { openLoginPlaces } from "#login/places.ts";

export function openCloudPlaces({ all }: CliEnvironment): CloudPlaces {
  return {
    ...openLoginPlaces(all),
    deviceName: formatUserAtHost(currentUser(all), hostname()),
    hasBrowser: hasBrowser(all),
    openBrowser: (url) => openBrowser(url, all),
  };
}
