// Every command and flag, declared for commander. What a command does is imported when it is run, so that `version`
// does not pay for `intercept`. Words after the first `--` never reach commander: they are the user's own command.
import type { CommanderError, OutputConfiguration } from "commander";
import { Command, Help, Option } from "commander";
import {
  addConnectFlags,
  addGlobalFlags,
  addIngestFlags,
  addInterceptFlags,
  addProxyFlags,
  hideFlags,
  previewFlagNames,
} from "./flags/flag-declarations.ts";
import { declareCloud, declareDashboard, declareLogin, declarePreview } from "./cloud/declarations.ts";
import { groups } from "./flags/help-groups.ts";
import { declareHelper } from "./flags/helper-declarations.ts";
import { nearestName } from "./nearest.ts";
import { refuseExtraWords } from "./own-command/own-command.ts";
import type { InterceptFlags } from "./flags/intercept-flags.ts";
import { meaninglessForReplacements } from "./flags/replace-flags.ts";
import { meaninglessForWiretaps } from "./flags/wiretap-flags.ts";
import type { CommandContext } from "./context.ts";
import type { GenyamlFlags } from "./commands/genyaml.ts";
import type { IngestFlags } from "./commands/ingest.ts";
import type { LeaveFlags } from "./commands/leave.ts";
import type { ListFlags } from "./commands/list.ts";
import type { RevokeFlags } from "./commands/revoke.ts";
import type { UninstallFlags } from "./commands/uninstall.ts";
import type { WhyFlags } from "./commands/why.ts";

/** What the user asked for, ready to run once output and machine are known. */
export type Action = {
  readonly name: string;
  readonly flags: Readonly<Record<string, unknown>>;
  readonly run: Run;
};
export type Run = (context: CommandContext) => Promise<number>;

export interface ProgramOptions {
  /** Words after `--`. */
  readonly command: readonly string[];
  readonly writeHelp: OutputConfiguration;
  readonly onAction: (action: Action) => void;
  /** Throws. */
  readonly onUsage: (path: string, error: CommanderError) => never;
  readonly version: string;
}

export function buildProgram(options: ProgramOptions): Command {
  const program = new Command("telepresence")
    .description("Telepresence puts your laptop into a Kubernetes cluster's network and brings services' traffic to it")
    .usage("[command] [flags]")
    .configureHelp({ visibleOptions: flagsOf, styleTitle: (title) => title.replace("Options:", "Flags:") })
    .version(`telepresence v${options.version}`, "--version", "print the version of this program")
    .helpOption("-h, --help", "show this page")
    .helpCommand(false);
  addGlobalFlags(program);
  declareSession(program, options);
  declareRun(program, options);
  declareTraffic(program, options);
  declareWiretap(program, options);
  declareReplace(program, options);
  declareIngest(program, options);
  declarePreview(program, (command, run) => action(command, options, run));
  declareLooking(program, options);
  declareOther(program, options);
  declareGenyaml(program, options);
  prepare(program, options);
  for (const command of program.commands) for (const each of [command, ...command.commands]) prepare(each, options);
  // The first page shows commands, each command's own page its flags. Only while help is shown: suggestions for a
  // mistyped flag are looked for among the visible ones too.
  program.on("beforeHelp", () => {
    program.configureHelp({
      subcommandTerm: (command) => command.name(),
      subcommandDescription: (command) => command.summary() || command.description(),
      visibleOptions: () => [],
    });
  });
  program.addHelpText("after", "\nFlags: see 'telepresence <command> --help'.");
  return program;
}

/** `preview create`, without the program's. */
function nameOf(command: Command): string {
  const { parent } = command;
  return (parent?.parent ?? null) === null ? command.name() : `${parent?.name()} ${command.name()}`;
}

/** Its own and those of the program, which commander would show as one long group. */
function flagsOf(command: Command): Option[] {
  const own = new Help().visibleOptions(command);
  const program = command.parent?.parent ?? command.parent;
  const shared = program?.options.filter((option) => !option.hidden && option.long !== "--version") ?? [];
  return [...own, ...shared];
}

/** Output and exits are ours. */
function prepare(command: Command, options: ProgramOptions): void {
  const path = command.parent === null ? "telepresence" : `telepresence ${nameOf(command)}`;
  command.configureOutput(options.writeHelp).helpCommand(false);
  command.exitOverride((error) => options.onUsage(path, error));
}

/** Hands the parsed flags on, with those of the program. */
function action(command: Command, options: ProgramOptions, run: (args: readonly unknown[]) => Run): void {
  command.action((...all: unknown[]) => {
    const args = all.slice(0, -2);
    options.onAction({ name: nameOf(command), flags: command.optsWithGlobals(), run: run(args) });
  });
}

function declareSession(program: Command, options: ProgramOptions): void {
  const connect = program
    .command("connect")
    .argument("[command...]", "command to run while connected, after --")
    .helpGroup(groups.session)
    .summary("Connect to a cluster")
    .description(
      "Connect to a cluster; with a command, for as long as it runs. Installs the traffic-manager if missing.",
    )
    .usage("[flags] [-- command [args...]]");
  addConnectFlags(connect);
  addProxyFlags(connect);
  action(connect, options, ([words]) => async (context) => {
    refuseExtraWords(words as readonly string[], { portMissing: false });
    const { runConnect } = await import("./commands/connect.ts");
    return runConnect(context, options.command);
  });

  declareLogin(program, (command, run) => action(command, options, run));

  const status = program.command("status").helpGroup(groups.session).usage("[flags]");
  status.description("Show the connectivity status");
  status.addOption(new Option("-j, --json", "older spelling of --output json").hideHelp());
  action(status, options, () => async (context) => (await import("./commands/status.ts")).runStatus(context));

  const quit = program
    .command("quit")
    .helpGroup(groups.session)
    .usage("[flags]")
    .description("End intercepts and outbound traffic, and stop the daemons")
    .addOption(
      new Option("-s, --stop-daemons", "accepted for compatibility: the daemons are always stopped").hideHelp(),
    )
    .addOption(new Option("-u, --user-daemon", "accepted for compatibility").hideHelp())
    .addOption(new Option("-r, --root-daemon", "accepted for compatibility").hideHelp());
  action(quit, options, () => async (context) => (await import("./commands/quit.ts")).runQuit(context));
}

function declareRun(program: Command, options: ProgramOptions): void {
  const run = program
    .command("run")
    .argument("[command...]", "command to run, after --")
    .helpGroup(groups.session)
    .summary("Run one command in the cluster's network, without root")
    .description(
      "Run one command, and what it starts, in the cluster's network. Needs no root and changes nothing else on this laptop. Connects when needed.",
    )
    .usage("[flags] -- command [args...]");
  addConnectFlags(run);
  action(run, options, ([words]) => async (context) => {
    refuseExtraWords(words as readonly string[], { portMissing: false });
    const { runInPrivateNetwork } = await import("./commands/run.ts");
    return runInPrivateNetwork(context, options.command);
  });
}

function declareTraffic(program: Command, options: ProgramOptions): void {
  const list = program
    .command("list")
    .helpGroup(groups.traffic)
    .usage("[flags]")
    .description("List intercepts, then the workloads that can be intercepted. Connects when needed.")
    .option("-i, --intercepts", "intercepts only")
    .option("-g, --ingests", "ingests only")
    .option("-r, --replacements", "replacements only")
    .option("-t, --wiretaps", "wiretaps only")
    .option("-a, --agents", "workloads with an installed traffic-agent only")
    .option("-o, --only-interceptable", "workloads that can be intercepted only; =false shows all", true)
    .addOption(new Option("--no-only-interceptable").hideHelp())
    .option("--debug", "include debugging information");
  addConnectFlags(list);
  action(list, options, () => async (context) => {
    const { runList } = await import("./commands/list.ts");
    return runList(context, list.opts<ListFlags>());
  });

  const intercept = program
    .command("intercept")
    .argument("<name>", "service or workload")
    .argument("[command...]", "command to run while intercepting, after --")
    .helpGroup(groups.traffic)
    .summary("Send a service's traffic to this laptop")
    .description("Send a service's traffic to this laptop. Connects and installs when needed.")
    .usage("<name> [flags] [-- command [args...]]");
  addInterceptFlags(intercept);
  addConnectFlags(intercept);
  action(intercept, options, ([name, words]) => async (context) => {
    const flags = intercept.opts<InterceptFlags>();
    refuseExtraWords(words as readonly string[], { portMissing: flags.port === undefined });
    if (flags.localOnly === true) {
      const { runLocalOnly } = await import("./commands/local-only.ts");
      return runLocalOnly(context, name as string, flags, options.command);
    }
    const { runIntercept } = await import("./commands/intercept.ts");
    return runIntercept(context, name as string, flags, options.command);
  });

  const leave = program
    .command("leave")
    .alias("detach")
    .argument("<names...>", "names of intercepts, replacements and wiretaps, or of workloads that are ingested")
    .helpGroup(groups.traffic)
    .usage("<names...> [flags]")
    .description("End intercepts, replacements, wiretaps and ingests")
    .option("-c, --container <name>", "only the ingest of this container");
  action(leave, options, ([names]) => async (context) => {
    const { runLeave } = await import("./commands/leave.ts");
    return runLeave(context, names as readonly string[], leave.opts<LeaveFlags>());
  });
}

function declareWiretap(program: Command, options: ProgramOptions): void {
  const wiretap = program
    .command("wiretap")
    .argument("<name>", "service or workload")
    .argument("[command...]", "command to run while copies come, after --")
    .helpGroup(groups.traffic)
    .summary("Send copies of a service's traffic to this laptop")
    .description(
      "Send copies of a service's traffic to this laptop; the service answers as ever, and what the local process answers is thrown away. Connects and installs when needed.",
    )
    .usage("<name> [flags] [-- command [args...]]");
  addInterceptFlags(wiretap);
  addConnectFlags(wiretap);
  hideFlags(wiretap, [...meaninglessForWiretaps.map(({ flag }) => flag), ...previewFlagNames]);
  action(wiretap, options, ([name, words]) => async (context) => {
    const flags = wiretap.opts<InterceptFlags>();
    refuseExtraWords(words as readonly string[], { portMissing: flags.port === undefined });
    const { runWiretap } = await import("./commands/wiretap.ts");
    return runWiretap(context, name as string, flags, options.command);
  });
}

function declareReplace(program: Command, options: ProgramOptions): void {
  const replace = program
    .command("replace")
    .argument("<workload>", "workload, or a service of it")
    .argument("[command...]", "command to run in its place, after --")
    .helpGroup(groups.traffic)
    .summary("Run a process on this laptop in a container's place")
    .description(
      "Run a process on this laptop in a container's place: the container does not run and sees no traffic until you leave. Takes a rollout. Connects and installs when needed.",
    )
    .usage("<workload> [flags] [-- command [args...]]");
  addInterceptFlags(replace);
  addConnectFlags(replace);
  hideFlags(replace, meaninglessForReplacements);
  action(replace, options, ([name, words]) => async (context) => {
    refuseExtraWords(words as readonly string[], { portMissing: false });
    const { runReplace } = await import("./commands/replace.ts");
    return runReplace(context, name as string, replace.opts<InterceptFlags>(), options.command);
  });
}

function declareIngest(program: Command, options: ProgramOptions): void {
  const ingest = program
    .command("ingest")
    .argument("<workload>", "workload, or a service of it")
    .argument("[command...]", "command to run with it, after --")
    .helpGroup(groups.traffic)
    .summary("Get a container's environment and files, and no traffic")
    .description(
      "Get a container's environment and files, and no traffic; with a command, for as long as it runs. Connects when needed.",
    )
    .usage("<workload> [flags] [-- command [args...]]");
  addIngestFlags(ingest);
  addConnectFlags(ingest);
  action(ingest, options, ([name, words]) => async (context) => {
    refuseExtraWords(words as readonly string[], { portMissing: false });
    const { runIngest } = await import("./commands/ingest.ts");
    return runIngest(context, name as string, ingest.opts<IngestFlags>(), options.command);
  });
}

function declareLooking(program: Command, options: ProgramOptions): void {
  const why = program
    .command("why")
    .argument("[name]", "intercept or workload; your own intercepts when left out")
    .argument("[request...]", "METHOD PATH [HEADER:VALUE...]: a request that nobody has sent")
    .helpGroup(groups.traffic)
    .summary("Show who got the last requests, and why")
    .description("Show who got the last requests to an intercepted workload and why, or who would get a certain one.")
    .usage("[name [METHOD PATH [HEADER:VALUE...]]] [flags]")
    .option("--limit <number>", "how many of the last requests (default: 20)");
  addConnectFlags(why);
  action(why, options, ([name, request]) => async (context) => {
    const { runWhy } = await import("./commands/why.ts");
    const words = name === undefined ? [] : [name as string, ...(request as readonly string[])];
    return runWhy(context, words, why.opts<WhyFlags>());
  });

  const revoke = program
    .command("revoke")
    .argument("<name>", "name or id of somebody else's intercept")
    .helpGroup(groups.traffic)
    .summary("End somebody else's intercept")
    .description(
      "End somebody else's intercept. Needs the right to `pods/exec` where it is; its owner is told who did it.",
    )
    .usage("<name> [flags]")
    .option("--owner <who>", "whose intercept, as user or user@host, when several people have one of that name")
    .option("-y, --yes", "do not ask");
  addConnectFlags(revoke);
  action(revoke, options, ([name]) => async (context) => {
    const { runRevoke } = await import("./commands/revoke.ts");
    return runRevoke(context, name as string, revoke.opts<RevokeFlags>());
  });
}

function declareOther(program: Command, options: ProgramOptions): void {
  const version = program.command("version").helpGroup(groups.other).usage("[flags]");
  version.description("Show the versions of all programs");
  action(version, options, () => async (context) => (await import("./commands/version.ts")).runVersion(context));

  const uninstall = program
    .command("uninstall")
    .argument("[names...]", "workloads whose traffic-agent is removed, as with --agent")
    .helpGroup(groups.other)
    .description("Remove traffic-agents, or everything that was installed, from the cluster")
    .usage("(<names...> | --agent <names...> | --all-agents | --everything) [flags]")
    .option("-d, --agent [names...]", "remove the traffic-agent of these workloads")
    .option("-a, --all-agents", "remove the traffic-agents of all workloads")
    .option(
      "-e, --everything",
      "remove all traffic-agents and the traffic-manager, and end what runs on this laptop, as quit does",
    )
    .option("-y, --yes", "do not ask when intercepts of other people end with it");
  addConnectFlags(uninstall);
  action(uninstall, options, ([names]) => async (context) => {
    const { runUninstall } = await import("./commands/uninstall.ts");
    return runUninstall(context, names as readonly string[], uninstall.opts<UninstallFlags>());
  });
  declareDashboard(program, (command, run) => action(command, options, run));
  declareCloud(program, (command, run) => action(command, options, run));
  declareHelper(program, (command, run) => action(command, options, run));
  const help = program
    .command("help")
    .argument("[command...]")
    .helpGroup(groups.other)
    .description("Show help for a command")
    .action((words: readonly string[]) => showHelp(program, help, words));
}

function declareGenyaml(program: Command, options: ProgramOptions): void {
  const genyaml = program
    .command("genyaml")
    .argument("[part]", "workload (default: the whole), config, container, initcontainer, annotations or volume")
    .helpGroup(groups.other)
    .summary("Print a manifest with the traffic-agent in it")
    .description(
      "Print a workload's manifest with the traffic-agent in it, for manifests that are kept elsewhere (GitOps). Changes nothing.",
    )
    .usage("[part] (--workload <name> | --input <file>) [flags]")
    .option("-w, --workload <name>", "workload, read from the cluster or chosen from the input")
    .option("-i, --input <file>", "manifest, with the workload's services if they are new; - for standard input");
  addConnectFlags(genyaml);
  action(genyaml, options, ([part]) => async (context) => {
    const { runGenyaml } = await import("./commands/genyaml.ts");
    return runGenyaml(context, part as string | undefined, genyaml.opts<GenyamlFlags>());
  });
}

/** `preview create` too; what a command takes for a word of its own (`helper install`) is its page. */
function showHelp(program: Command, help: Command, words: readonly string[]): void {
  let shown = program;
  for (const name of words) {
    const found = shown.commands.find((command) => matches(command, name));
    if (found === undefined && shown.registeredArguments.length > 0) break;
    if (found === undefined) failUnknown(shown, help, name);
    else shown = found;
  }
  shown.help();
}

function failUnknown(within: Command, help: Command, name: string): void {
  const names = within.commands.map((command) => command.name());
  const nearest = nearestName(name, names);
  help.error(`unknown command '${name}'${nearest === undefined ? "" : `, did you mean ${nearest}?`}`, { exitCode: 2 });
}

const matches = (command: Command, name: string): boolean =>
  command.name() === name || command.aliases().includes(name);
