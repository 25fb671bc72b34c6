// The traffic-agent's program: `traffic-agent` serves until SIGTERM. Run by pods/exec, `traffic-agent environment`
// prints the application's environment as JSON, `traffic-agent stand-in JSON` stands in an application's place, `traffic-agent revoke ID BY` ends an intercept, and
// `traffic-agent files FOLDER NAME` sends files as tar.
import { deadline } from "#base/abort.ts";
import { systemClock } from "#base/clock.ts";
import { AppError, formatError, toAppError } from "#base/error.ts";
import type { Logger } from "#base/log.ts";
import type { AgentConfig } from "#wire/agent-api.ts";
import { agentDoorName, revokeCommand } from "#wire/agent-door.ts";
import { standInCommand, standInSchema } from "#wire/stand-in.ts";
import type { StandIn } from "#wire/stand-in.ts";
import { applicationEnvironment, parseAgentSettings } from "./config.ts";

type EphemeralConfig = NonNullable<AgentConfig["ephemeral"]>;

async function main(): Promise<void> {
  if (process.argv[2] === "environment") {
    process.stdout.write(`${JSON.stringify(applicationEnvironment())}\n`);
    return;
  }
  if (process.argv[2] === "files") {
    await files(process.argv[3], process.argv[4]);
    return;
  }
  if (process.argv[2] === revokeCommand) {
    const { askToRevoke } = await import("./container-door.ts");
    const [id = "", by = ""] = process.argv.slice(3);
    const answer = await askToRevoke(agentDoorName, { id, by }, systemClock);
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    return;
  }
  if (process.argv[2] === standInCommand) {
    await standIn(standInSchema.parse(JSON.parse(process.argv[3] ?? "")));
    return;
  }
  const settings = parseAgentSettings();
  const [{ createLogger, lineWriter }, { startAgent }] = await Promise.all([
    import("#base/log.ts"),
    import("./agent.ts"),
  ]);
  const log = createLogger(settings.logLevel, lineWriter(process.stdout));
  const told = untilTold();
  if (settings.config.ephemeral !== undefined) await beFirstWithoutMemory(settings.config.ephemeral, log);
  const agent = await startAgent({ settings, clock: systemClock, log });
  const why = await Promise.race([told.then(() => "told" as const), agent.idle.then(() => "idle" as const)]);
  if (why === "told") {
    log.info("agent draining", { connections: agent.openConnections });
    using limit = deadline(systemClock, settings.drainMs, "draining");
    await agent.drain(limit.signal);
  }
  await agent[Symbol.asyncDispose]();
  log.info("agent ended", { why });
}

async function files(folder = "", name = ""): Promise<void> {
  const { sendFiles } = await import("./send-files.ts");
  const write = (bytes: Buffer): Promise<void> =>
    new Promise((resolve, reject) => process.stdout.write(bytes, (error) => (error ? reject(error) : resolve())));
  const unreadable = await sendFiles(folder, name, write);
  if (unreadable.length > 0) throw new AppError("denied", `${unreadable.length} cannot be read: ${unreadable[0]}`);
}

function untilTold(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
  });
}

/** chosen: the agent beside it serves as long as somebody listens here, and needs what is left of the grace period to drain. */
const standInLingerMs = 2000;
/** chosen: a container without ports has nothing to wait for; the process must not end for that. */
const aliveMs = 60_000;

async function standIn(told: StandIn): Promise<void> {
  const ending = untilTold();
  const { createLogger, lineWriter } = await import("#base/log.ts");
  const { startStandIn } = await import("./stand-in.ts");
  const log = createLogger("info", lineWriter(process.stdout));
  using _alive = systemClock.every(aliveMs, () => undefined);
  await using _server = await startStandIn({ standIn: told, clock: systemClock, log });
  await ending;
  await systemClock.sleep(standInLingerMs, new AbortController().signal);
}

/** An ephemeral agent shares the pod's memory limit: where that is reached it must be the one to go. */
async function beFirstWithoutMemory({ memoryLimitBytes }: EphemeralConfig, log: Logger): Promise<void> {
  try {
    const { raiseOomScore, seemLargerThan } = await import("#kernel/oom-volunteer.ts");
    raiseOomScore();
    if (memoryLimitBytes !== undefined) seemLargerThan(memoryLimitBytes);
  } catch (error) {
    log.warn("the application may be ended before this agent when memory is short", { reason: String(error) });
  }
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`traffic-agent: ${formatError(toAppError(error))}\n`);
    process.exit(1);
  },
);
