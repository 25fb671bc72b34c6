// The daemon's environment, read once. What a command needs of its own environment comes with the command.
import { AppError } from "#base/error.ts";
import { hostPaths, type HostPaths } from "#host/paths.ts";
import type { LoginPlaces } from "#login/credentials.ts";
import { openLoginPlaces } from "#login/places.ts";
import { formatUserAtHost, currentUser } from "#host/user.ts";
import { isConnectionName } from "#wire/connection-name.ts";

export interface DaemonConfig {
  /** Where the user's login at a cloud server is, if there is one. */
  readonly login: LoginPlaces;
  readonly paths: HostPaths;
  /** Its name, where there are several. */
  readonly connection: string | undefined;
  /** `user@host`, shown to team mates. */
  readonly client: string;
  readonly logLevel: "trace" | "debug" | "info" | "warn" | "error";
}

const levels = ["trace", "debug", "info", "warn", "error"] as const;

export function readDaemonConfig(connection: string | undefined): DaemonConfig {
  const { env } = process;
  if (connection !== undefined && !isConnectionName(connection)) {
    throw new AppError("usage", `"${connection}" is no connection's name`);
  }
  const level = levels.find((known) => known === env["TELEPRESENCE_DEBUG_LOG_LEVEL"]);
  return {
    login: openLoginPlaces(env),
    paths: hostPaths(env, undefined, connection),
    connection,
    client: formatUserAtHost(currentUser(env)),
    logLevel: level ?? "info",
  };
}
