// The traffic-agent's program: `traffic-agent` serves until SIGTERM; `traffic-agent environment`, run by pods/exec,
// prints the application's environment as JSON.
import { deadline } from "#base/abort.ts";
import { systemClock } from "#base/clock.ts";
import { formatError, toAppError } from "#base/error.ts";
import { applicationEnvironment, parseAgentSettings } from "./config.ts";

async function main(): Promise<void> {
  if (process.argv[2] === "environment") {
    process.stdout.write(`${JSON.stringify(applicationEnvironment())}\n`);
    return;
  }
  const settings = parseAgentSettings();
  const [{ createLogger, lineWriter }, { startAgent }] = await Promise.all([
    import("#base/log.ts"),
    import("./agent.ts"),
  ]);
  const log = createLogger(settings.logLevel, lineWriter(process.stdout));
  const told = new Promise<void>((resolve) => {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
  });
  const agent = await startAgent({ settings, clock: systemClock, log });
  await told;
  log.info("agent draining", { connections: agent.openConnections });
  using limit = deadline(systemClock, settings.drainMs, "draining");
  await agent.drain(limit.signal);
  await agent[Symbol.asyncDispose]();
  log.info("agent ended");
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`traffic-agent: ${formatError(toAppError(error))}\n`);
    process.exit(1);
  },
);
