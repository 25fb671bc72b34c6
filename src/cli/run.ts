// One run of the command line, from words to exit code. Everything it touches is handed in, so that a test can run it
// in its own process.
import type { CommanderError } from "commander";
import type { Clock } from "#base/clock.ts";
import type { AppError } from "#base/error.ts";
import { errorCodes, formatError, isAppError, toAppError } from "#base/error.ts";
import { softwareVersion } from "#base/version.ts";
import { splitArguments } from "./flags/arguments.ts";
import type { CliEnvironment } from "./config.ts";
import { chooseConnection } from "./connection/connections.ts";
import type { GlobalFlags } from "./flags/flags.ts";
import { checkNamespaces, outputMode, progressMode } from "./flags/flags.ts";
import type { Interrupts } from "./interrupts.ts";
import { signalExitCode } from "./interrupts.ts";
import type { Machine } from "./machine.ts";
import type { Sink } from "./output.ts";
import { Output } from "./output.ts";
import type { Action } from "./program.ts";
import { buildProgram } from "./program.ts";

export interface RunOptions {
  /** Words after the program's name. */
  readonly argv: readonly string[];
  readonly environment: CliEnvironment;
  readonly stdout: Sink;
  readonly stderr: Sink;
  readonly openMachine: (environment: CliEnvironment) => Machine | Promise<Machine>;
  readonly interrupts: Interrupts;
  readonly clock: Clock;
}

/** Resolves with the exit code; never rejects. */
export async function runCli(options: RunOptions): Promise<number> {
  let name = "telepresence";
  try {
    const plan = parseCommandLine(options);
    if (typeof plan === "number") return plan;
    name = `telepresence ${plan.name}`;
    return await runAction(options, plan);
  } catch (error) {
    const reported = toAppError(error);
    if (reported.code === "usage") return usageFailure(options, name, reported);
    options.stderr.write(`telepresence: error: ${formatError(reported)}\n`);
    return errorCodes[reported.code].exit;
  }
}

/** The action, or the exit code when help or an error was all there was to it. */
function parseCommandLine(options: RunOptions): Action | number {
  const { own, command: words } = splitArguments(options.argv);
  const command = words ?? [];
  const { stdout } = options;
  let chosen: Action | undefined;
  let exitCode = 0;
  const stop = Symbol("stop");
  const program = buildProgram({
    command,
    version: softwareVersion,
    onAction: (action) => (chosen = action),
    writeHelp: {
      writeOut: (text) => stdout.write(text),
      writeErr: () => undefined, // the exit below says it in our words
      outputError: () => undefined,
      getOutHelpWidth: () => (stdout.isTTY ? stdout.columns : 100),
      getOutHasColors: () => false,
    },
    onUsage: (path, error) => {
      if (error.exitCode !== 0) exitCode = usageFailure(options, path, { message: describe(error) });
      throw stop;
    },
  });
  if (own.length === 0) {
    program.outputHelp();
    return command.length === 0
      ? 0
      : usageFailure(options, "telepresence", { message: "expected a command before --" });
  }
  try {
    program.parse([...own], { from: "user" });
  } catch (error) {
    if (error === stop) return exitCode;
    throw error;
  }
  if (chosen === undefined) return exitCode;
  const wrong = words && describeCommand(chosen.name, words);
  return wrong === undefined ? chosen : usageFailure(options, `telepresence ${chosen.name}`, { message: wrong });
}

/** What is wrong with the words after `--`. */
function describeCommand(name: string, [file]: readonly string[]): string | undefined {
  if (!["connect", "run", "intercept", "replace", "wiretap", "ingest"].includes(name))
    return file === undefined ? undefined : "takes no command after --";
  if (file === undefined) return "expected a command after --";
  return file === "" ? 'the command after -- is ""' : undefined;
}

/** `error: unknown option '--x'` and, on a line of its own, `(Did you mean --y?)`, as one sentence. */
function describe(error: CommanderError): string {
  if (error.code === "commander.help") return "expected one of its commands";
  return error.message
    .replace(/^error: /, "")
    .replace(/\n\(Did you mean (.*?)\?\)$/s, ", did you mean $1?")
    .replace(/\.$/, "");
}

interface WrongUsage {
  readonly message: string;
  readonly hint?: string | undefined;
}

/** The hint has lines of its own: it may be a caret below an expression. */
function usageFailure({ stderr }: RunOptions, path: string, { message, hint }: WrongUsage): number {
  const next = hint === undefined ? "" : `${hint}\n`;
  stderr.write(`${path}: ${message}\n${next}See '${path} --help'.\n`);
  return errorCodes.usage.exit;
}

/** Throws only what is wrong with the flags themselves. */
async function runAction(options: RunOptions, action: Action): Promise<number> {
  const flags = withAliases(action);
  const output = new Output({
    stdout: options.stdout,
    stderr: options.stderr,
    mode: outputMode(flags),
    progress: progressMode(flags),
    verbose: flags.verbose === true,
  });
  const { environment, interrupts, clock } = options;
  try {
    const machine = await chooseConnection(await options.openMachine(environment), action.name, flags);
    const code = await action.run({ flags, environment, machine, output, interrupts, clock });
    await output.finish(action.name);
    return code;
  } catch (error) {
    output.clearProgress();
    if (isAppError(error, "usage")) throw error;
    const reported = toAppError(error);
    await output.finish(action.name, reported);
    return exitCodeOf(reported, interrupts);
  }
}

/** `status --json` is an older spelling, and an empty namespace is none, as kubectl has it. */
function withAliases({ name, flags }: Action): GlobalFlags {
  const { namespace, ...others } = flags as GlobalFlags & { readonly json?: boolean };
  checkNamespaces("--namespace", [namespace]);
  const known = namespace === undefined || namespace === "" ? others : { ...others, namespace };
  return name === "status" && known.json === true ? { ...known, output: known.output ?? "json" } : known;
}

function exitCodeOf(error: AppError, { first }: Interrupts): number {
  if (error.code === "cancelled" && first !== undefined) return signalExitCode(first);
  return errorCodes[error.code].exit;
}
