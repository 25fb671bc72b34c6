// The cloud server's program: `telepresence cloud serve`. Serves until SIGTERM, lets requests end, and ends.
import { CommanderError } from "commander";
import { systemClock } from "#base/clock.ts";
import { formatError, isAppError, toAppError } from "#base/error.ts";
import { createLogger, lineWriter } from "#base/log.ts";
import { startCloud } from "./cloud.ts";
import { parseCloudConfig } from "./config.ts";
import { plainLine } from "./plain-line.ts";

async function main(): Promise<void> {
  const write = lineWriter(process.stdout); // first: a reader of --help may leave early
  const config = parseCloudConfig(process.argv.slice(2), (command) => command.exitOverride());
  const isTerminal = process.stdout.isTTY; // where a person reads
  const log = createLogger(config.logLevel, isTerminal ? (line) => write(plainLine(line)) : write);
  const { promise: told, resolve, reject: onFailed } = Promise.withResolvers<void>();
  told.catch(() => undefined); // it may be known before anybody waits for it
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
  const starting = startCloud({ config, clock: systemClock, log, onFailed });
  // it may wait for another server's end, and holds nothing until then
  const isAskedToEnd = await Promise.race([starting.then(() => false), told.then(() => true)]);
  if (isAskedToEnd) return;
  await using cloud = await starting;
  for (const line of cloud.greeting) write(`${line}\n`);
  await told;
  log.info("cloud server ending");
  await cloud[Symbol.asyncDispose]();
  log.info("cloud server ended");
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
    process.stderr.write(`telepresence cloud: error: ${formatError(toAppError(error))}\n`);
    process.exit(isAppError(error, "usage") ? 2 : 1);
  },
);
