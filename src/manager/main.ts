// The traffic-manager's program: serves until SIGTERM, then tells everybody and ends.
import { systemClock } from "#base/clock.ts";
import { formatError, toAppError } from "#base/error.ts";
import { createLogger, lineWriter } from "#base/log.ts";
import { parseManagerConfig } from "./config.ts";
import { startManager } from "./manager.ts";

async function main(): Promise<void> {
  const config = parseManagerConfig();
  const log = createLogger(config.logLevel, lineWriter(process.stdout));
  const told = new Promise<void>((resolve) => {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
  });
  const manager = await startManager({ config, clock: systemClock, log });
  await told;
  log.info("manager ending");
  await manager[Symbol.asyncDispose]();
  log.info("manager ended");
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`traffic-manager: ${formatError(toAppError(error))}\n`);
    process.exit(1);
  },
);
