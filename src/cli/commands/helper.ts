// `helper install`, `uninstall` and `status`: the root helper as a service of this machine, so that `connect` asks for
// no password. What will be changed is said before anybody is asked for one.
import { AppError, toAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import { helperServiceProgram, helperServiceSocket, helperServiceUnit } from "#wire/helper-service.ts";
import type { CommandContext } from "#cli/context.ts";
import { exitCodeOf } from "#cli/own-command/foreground.ts";
import type { ServicePlaces } from "#cli/machine.ts";

export interface HelperFlags {
  readonly allowUser?: readonly string[];
  readonly dryRun?: boolean;
}

export async function runHelperCommand(context: CommandContext, what: string, flags: HelperFlags): Promise<number> {
  const places = await context.machine.openServicePlaces();
  switch (what) {
    case "install":
      return install(context, places, flags);
    case "uninstall":
      return uninstall(context, places, flags);
    case "status":
      return status(context, places);
    default:
      throw new AppError("usage", `unknown command 'helper ${what}', expected install, uninstall or status`);
  }
}

async function install(context: CommandContext, places: ServicePlaces, flags: HelperFlags): Promise<number> {
  const { output, machine } = context;
  const uids = [...new Set(await Promise.all((flags.allowUser ?? [String(places.uid)]).map(places.userId)))];
  if (!places.runsSystemd) {
    throw new AppError("unsupported", "this machine is not run by systemd, so the root helper cannot be its service", {
      hint: `let sudo run \`${machine.helperCommandLine.replace(/^sudo /, "")}\` without a password, or use \`telepresence connect --proxy\``,
    });
  }
  const steps = [
    `a copy of this program that only root can change: ${helperServiceProgram}`,
    ...uids.map((uid) => `a socket that only user ${uid} can connect to: ${helperServiceSocket(uid)}`),
    ...uids.map((uid) => `a systemd unit that starts a root helper for each connection: ${helperServiceUnit(uid)}`),
  ];
  if (flags.dryRun === true) return say(context, "Would make", steps);
  say(context, "Making", steps);
  await setUp(context, places, ["install", ...uids.map(String)]);
  output.line("The root helper is set up: `telepresence connect` asks for no password any more");
  return 0;
}

async function uninstall(context: CommandContext, places: ServicePlaces, flags: HelperFlags): Promise<number> {
  const { output } = context;
  if (places.users.length === 0 && places.version === undefined) {
    output.line("The root helper is not set up as a service");
    output.data({ removed: [] });
    return 0;
  }
  const steps = [helperServiceProgram, ...places.users.map(helperServiceUnit)];
  if (flags.dryRun === true) return say(context, "Would remove", steps);
  say(context, "Removing, and ending what is connected by it", steps);
  await setUp(context, places, ["uninstall"]);
  output.line("The root helper is no service any more: `telepresence connect` uses sudo");
  return 0;
}

function say({ output }: CommandContext, what: string, steps: readonly string[]): number {
  output.lines([`${what}:`, ...steps.map((step) => `  ${step}`)]);
  output.data({ steps });
  return 0;
}

/** The terminal is the program's: sudo may ask on it. */
async function setUp(context: CommandContext, places: ServicePlaces, words: readonly string[]): Promise<void> {
  const { environment, interrupts, machine, output } = context;
  const command = places.setupCommand(words);
  if (!machine.isRoot) output.announce(`Need root privileges to run: ${command.join(" ")}`);
  output.clearProgress();
  const child = await machine.startForeground({ command, env: environment.all });
  using _signals = interrupts.divert((name) => child.forward(name));
  const code = exitCodeOf(await child.ended);
  if (code === 0) return;
  throw new AppError(
    "helper_failed",
    `the root helper could not be set up or removed: exit code ${code} of its program`,
  );
}

async function status(context: CommandContext, places: ServicePlaces): Promise<number> {
  const { output, machine, interrupts } = context;
  const { version, users } = places;
  if (version === undefined || users.length === 0) {
    output.line("The root helper is not set up as a service; `telepresence helper install` does");
    output.data({ installed: false }, { bare: true });
    return 0;
  }
  const other =
    version === softwareVersion
      ? ""
      : ` (this command is v${softwareVersion}: \`telepresence helper install\` brings it up to date)`;
  output.lines([`Root helper service: v${version}${other}`, `  Users: ${users.join(", ")}`]);
  const problem = await problemOf(places, machine.helperService, interrupts.signal);
  output.line(`  For you: ${problem ?? "ready"}`);
  output.data({ installed: true, version, users, ready: problem === undefined, problem }, { bare: true });
  return 0;
}

async function problemOf(places: ServicePlaces, isThere: boolean, signal: AbortSignal): Promise<string | undefined> {
  if (!isThere) return "there is no socket; `telepresence helper install` sets it up";
  try {
    await places.tryService(signal);
    return undefined;
  } catch (error) {
    return toAppError(error).message;
  }
}
