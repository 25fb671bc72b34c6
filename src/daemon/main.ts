// The user daemon's process: `telepresence daemon [NAME]`, started by the CLI, one for each connection. Opens the helper's door and the control socket,
// and ends on `quit`, SIGTERM or SIGINT with everything undone. Whatever ends it otherwise, the kernel undoes the rest.
import { deadline, raceSignal } from "#base/abort.ts";
import { systemClock } from "#base/clock.ts";
import { AppError } from "#base/error.ts";
import { createLogger, lineWriter, type Logger } from "#base/log.ts";
import { Scope } from "#base/scope.ts";
import { softwareVersion } from "#base/version.ts";
import { tryLock } from "#host/lock.ts";
import { ensureDirectory, ensureRuntimeDirectory } from "#host/paths.ts";
import { removeAbandonedFolders } from "#host/volume-folder.ts";
import { helperServiceSocket } from "#wire/helper-service.ts";
import { identifyTarget, openClusterSession } from "./cluster-session.ts";
import { readDaemonConfig } from "./config.ts";
import { createHandlers } from "./control/handlers.ts";
import { startControlServer } from "./control/server.ts";
import { openHelperDoor } from "./helper-client.ts";
import { HelperFailures } from "./helper-failures.ts";
import { readInstallId } from "./install-id.ts";
import { PrivateNetworks } from "./private-networks/door.ts";
import { Supervisor } from "./supervisor.ts";
import { uninstall } from "./uninstall.ts";

/** chosen: the longest that an orderly end may take before the process ends anyway. */
const shutdownMs = 10_000;

/** Runs until told to end; resolves with the exit code. */
export async function runDaemon(): Promise<number> {
  const config = readDaemonConfig(process.argv[2]);
  const log = createLogger(config.logLevel, lineWriter(process.stderr)); // the CLI points it at the log file
  ensureRuntimeDirectory(config.paths.runtime);
  ensureDirectory(config.paths.cache);
  using lock = tryLock(config.paths.daemonLock); // what makes stale sockets safe to remove
  if (lock === undefined) {
    log.info("another daemon is running already");
    return 0;
  }
  const { promise: told, resolve: shutDown } = Promise.withResolvers<void>();
  const scope = new Scope(log);
  try {
    await openParts(scope, config, log, shutDown);
    process.once("SIGTERM", () => shutDown());
    process.once("SIGINT", () => shutDown());
    log.info("daemon started", { version: softwareVersion, pid: process.pid });
    await told;
    log.info("daemon ending");
  } finally {
    using limit = deadline(systemClock, shutdownMs, "the daemon's end");
    await raceSignal(scope[Symbol.asyncDispose](), limit.signal).catch((error: unknown) => {
      log.error("daemon did not end in order", { error: String(error) });
    });
  }
  log.info("daemon ended");
  return 0;
}

async function openParts(
  scope: Scope,
  config: ReturnType<typeof readDaemonConfig>,
  log: Logger,
  shutDown: () => void,
): Promise<void> {
  const clock = systemClock;
  const { paths, client, connection, login } = config;
  const installId = readInstallId(paths.cache, connection);
  const abandoned = await removeAbandonedFolders(paths.runtime);
  if (abandoned > 0) log.info("copies of volumes removed that another daemon left", { folders: abandoned });
  const failures = new HelperFailures();
  // What was told of an earlier attempt must not end the `connect` that waits for this one.
  const onCandidate = (): void => failures.forget();
  const door = scope.use(await openHelperDoor({ path: paths.helperSocket, onCandidate, clock, log }));
  const serviceSocket = helperServiceSocket(process.getuid?.() ?? 0);
  const callHelper = (signal: AbortSignal): Promise<void> => door.callService(serviceSocket, signal);
  const context = { door, failures, client, connection, installId, runtime: paths.runtime, login, clock, log };
  const networks = scope.use(await PrivateNetworks.open({ path: paths.networksSocket, clock, log }));
  const supervisor = scope.use(
    new Supervisor({
      openSession: (options, caller, signal) => openClusterSession(options, caller.progress, context, signal),
      uninstall: (params, session, caller) => uninstall(params, session, caller, clock),
      identify: identifyTarget,
      programs: () => networks.count,
      helperRunning: () => door.current !== undefined,
      installId,
      name: connection,
      executable: process.argv[1] ?? process.execPath,
      shutDown,
      log,
    }),
  );
  scope.use(
    await startControlServer({
      path: paths.daemonSocket,
      handlersFor: createHandlers(supervisor, { callHelper, networks, clock, log }),
      clock,
      onHelperFailed: (message) => failures.report(new AppError("helper_failed", message)),
      log,
    }),
  );
}

if (import.meta.main) void runDaemon().then((code) => process.exit(code));
