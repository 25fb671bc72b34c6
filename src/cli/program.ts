// Every command and flag, declared for commander. What a command does is imported when it is run, so that `version`
// does not pay for `intercept`. Words after the first `--` never reach commander: they are the user's own command.
import type { CommanderError, OutputConfiguration } from "commander";
import { Command, Help, Option } from "commander";
import { nearestName } from "./nearest.ts";
import { refuseExtraWords } from "./own-command.ts";
import type { InterceptFlags } from "./intercept-flags.ts";
import type { CommandContext } from "./context.ts";
import type { GenyamlFlags } from "./commands/genyaml.ts";
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
type Run = (context: CommandContext) => Promise<number>;

export interface ProgramOptions {
  /** Words after `--`. */
  readonly command: readonly string[];
  readonly writeHelp: OutputConfiguration;
  readonly onAction: (action: Action) => void;
  /** Throws. */
  readonly onUsage: (path: string, error: CommanderError) => never;
  readonly version: string;
}

/** Of the specification, and coming with the cloud server. */
const absentCommands: readonly string[] = ["login", "logout", "dashboard", "preview"];

const groups = { session: "Session Commands:", traffic: "Traffic Commands:", other: "Other Commands:" } as const;
const headings = {
  kubernetes: "Kubernetes Flags:",
  connection: "Connection Flags:",
  filter: "Filter Flags:",
  global: "Global Flags:",
} as const;

export function buildProgram(options: ProgramOptions): Command {
  const program = new Command("telepresence")
    .description(
      "Telepresence puts your laptop into a Kubernetes cluster's network and brings a service's traffic to it",
    )
    .usage("[command] [flags]")
    .configureHelp({ visibleOptions: flagsOf, styleTitle: (title) => title.replace("Options:", "Flags:") })
    .version(`telepresence v${options.version}`, "--version", "print the version of this program")
    .helpOption("-h, --help", "show this page")
    .helpCommand(false);
  addGlobalFlags(program);
  declareSession(program, options);
  declareTraffic(program, options);
  declareLooking(program, options);
  declareOther(program, options);
  declareGenyaml(program, options);
  prepare(program, options);
  for (const command of program.commands) prepare(command, options);
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

/** Its own and those of the program, which commander would show as one long group. */
function flagsOf(command: Command): Option[] {
  const own = new Help().visibleOptions(command);
  const shared = command.parent?.options.filter((option) => !option.hidden && option.long !== "--version") ?? [];
  return [...own, ...shared];
}

/** Output and exits are ours. */
function prepare(command: Command, options: ProgramOptions): void {
  const path = command.parent === null ? "telepresence" : `telepresence ${command.name()}`;
  command.configureOutput(options.writeHelp);
  command.exitOverride((error) => options.onUsage(path, error));
}

/** Hands the parsed flags on, with those of the program. */
function action(command: Command, options: ProgramOptions, run: (args: readonly unknown[]) => Run): void {
  command.action((...all: unknown[]) => {
    const args = all.slice(0, -2);
    options.onAction({ name: command.name(), flags: command.optsWithGlobals(), run: run(args) });
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
  action(connect, options, ([words]) => async (context) => {
    refuseExtraWords(words as readonly string[], { portMissing: false });
    const { runConnect } = await import("./commands/connect.ts");
    return runConnect(context, options.command);
  });

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

function declareTraffic(program: Command, options: ProgramOptions): void {
  const list = program
    .command("list")
    .helpGroup(groups.traffic)
    .usage("[flags]")
    .description("List intercepts, then the workloads that can be intercepted. Connects when needed.")
    .option("-i, --intercepts", "intercepts only")
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
    const { runIntercept } = await import("./commands/intercept.ts");
    return runIntercept(context, name as string, flags, options.command);
  });

  const leave = program
    .command("leave")
    .alias("detach")
    .argument("<names...>", "names of intercepts")
    .helpGroup(groups.traffic)
    .usage("<names...> [flags]")
    .description("End intercepts");
  action(leave, options, ([names]) => async (context) => {
    const { runLeave } = await import("./commands/leave.ts");
    return runLeave(context, names as readonly string[]);
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
  const help = program
    .command("help")
    .argument("[command]")
    .helpGroup(groups.other)
    .description("Show help for a command")
    .action((name: string | undefined) => showHelp(program, help, name));

  for (const name of absentCommands) {
    const absent = program.command(name, { hidden: true }).argument("[words...]").allowUnknownOption();
    action(absent, options, () => async () => (await import("./commands/absent.ts")).failAbsent(name));
  }
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

function showHelp(program: Command, help: Command, name: string | undefined): void {
  const shown = name === undefined ? program : program.commands.find((command) => matches(command, name));
  if (shown !== undefined) shown.help();
  const names = program.commands
    .filter((command) => !absentCommands.includes(command.name()))
    .map((command) => command.name());
  const nearest = nearestName(name ?? "", names);
  help.error(`unknown command '${name}'${nearest === undefined ? "" : `, did you mean ${nearest}?`}`, { exitCode: 2 });
}

const matches = (command: Command, name: string): boolean =>
  command.name() === name || command.aliases().includes(name);

function addInterceptFlags(command: Command): void {
  const hidden = (flags: string, text: string): Option => new Option(flags, text).hideHelp();
  command
    .addOption(
      new Option(
        "-p, --port <local[:port]>",
        "local port (default: 8080), and the service's port by name or number when it has several; 5353:53/udp; repeatable",
      ).argParser(appendValue),
    )
    .option("--service <name>", "service to intercept, when the workload has several")
    .option(
      "-w, --workload <name>",
      "workload to intercept, when it has another name than the intercept; KIND/NAME too",
    )
    .addOption(hidden("-d, --deployment <name>", "older spelling of --workload"))
    .option("--container <name>", "container whose environment is meant, when there are several")
    .option(
      "--agent <kind>",
      "auto (default: ephemeral where it can be, else sidecar), ephemeral (no pod is restarted) or sidecar (one rollout)",
    )
    .option("--existing <what>", "connections that are open already: keep (default), drain (close when idle) or reset")
    .option("--on-refused <who>", "when the local process does not take a connection: app (answers, default) or fail")
    .option("--address <host>", "where the local process listens (default: 127.0.0.1)")
    .option("-e, --env-file <path>", "write the pod's environment to a file")
    .option(
      "--env-syntax <name>",
      "of that file: compose (default), docker, sh, csh, ps (each of these three also with :export), cmd or json",
    )
    .option("-j, --env-json <path>", "write the pod's environment to a file as JSON")
    .addOption(
      new Option("--env-exclude <list>", "variables that are left out, * for any letters").argParser(appendList),
    )
    .option("--detailed-output", "with --output or --format: one object with everything, the pod's environment too")
    .option("--mechanism <name>", "tcp, or http with a filter; it follows from the other flags")
    .option(
      "--mount <bool|path>",
      "where the container's volumes are copied to (default: true, a directory of its own)",
    )
    .addOption(
      new Option(
        "--copy-volume <name>",
        "also copy a volume that only the container has, once; by its name or mount path",
      ).argParser(appendValue),
    )
    .option("--copy-limit <size>", "the most that one --copy-volume may be (default: 256Mi)")
    .addOption(hidden("--http-match <filter>", "older spelling of --http-header").argParser(appendValue))
    .addOption(hidden("-u, --preview-url", "not available"))
    .addOption(hidden("--no-preview-url", "accepted"));
  addFilterFlags(command);
}

/** All of them together must hold; each compiles to CEL. */
function addFilterFlags(command: Command): void {
  const repeatable = (flags: string, text: string): Option => new Option(flags, text).argParser(appendValue);
  command
    .optionsGroup(headings.filter)
    .addOption(
      repeatable("--http-header <NAME=REGEX>", "requests whose header matches; auto: a header of this intercept's own"),
    )
    .option("--http-path-equal <path>", "requests of this path")
    .option("--http-path-prefix <prefix>", "requests whose path begins so")
    .option("--http-path-regex <regex>", "requests whose whole path matches")
    .addOption(new Option("--http-method <list>", "requests with one of these methods").argParser(appendList))
    .addOption(repeatable("--http-query <NAME=REGEX>", "requests with a query parameter that matches"))
    .option("--http-body <regex>", "requests with a match somewhere in the body, which is 64 KiB at most")
    .addOption(
      repeatable("--grpc-method <SERVICE/METHOD>", "requests of a gRPC method; SERVICE/* for all of a service"),
    )
    .addOption(repeatable("--match <CEL>", "requests for which the expression is true"))
    .option("--tls-cert <VOLUME[:CERT,KEY]>", "the pod's volume or Secret with the certificate, to read TLS by")
    .option("--plaintext", "send what was read from TLS to the local process as plain HTTP")
    .addOption(new Option("--http-plaintext", "older spelling of --plaintext").hideHelp())
    .option("--allow-overlap", "also when somebody else's intercept may take the same requests");
}

/** Also what a place is called with; commands that never connect do not take them. */
function addConnectFlags(command: Command): void {
  command
    .optionsGroup(headings.connection)
    .option("--manager-namespace <namespace>", "namespace of the traffic-manager")
    .addOption(
      new Option("--mapped-namespaces <list>", "namespaces whose names resolve; all when left out").argParser(
        appendList,
      ),
    )
    .addOption(new Option("--also-proxy <list>", "further subnets to route to the cluster").argParser(appendList))
    .addOption(new Option("--never-proxy <list>", "subnets that are never routed to the cluster").argParser(appendList))
    .option("--image <reference>", "image of traffic-manager and traffic-agent")
    .option("--image-pull-policy <policy>", "Always, IfNotPresent or Never");
}

function addGlobalFlags(program: Command): void {
  program
    .optionsGroup(headings.kubernetes)
    .option("--kubeconfig <path>", "kubeconfig file")
    .option("--context <name>", "context of the kubeconfig")
    .option("--cluster <name>", "cluster of the kubeconfig")
    .option("--user <name>", "user of the kubeconfig")
    .option("-n, --namespace <namespace>", "namespace of the connection, or of the workload that is meant")
    .option("--server <url>", "address of the Kubernetes API server")
    .option("--token <token>", "bearer token for the API server")
    .option("--as <user>", "user to impersonate")
    .addOption(new Option("--as-group <group>", "group to impersonate; repeatable").argParser(appendValue))
    .option("--certificate-authority <path>", "CA certificate of the API server")
    .option("--client-certificate <path>", "client certificate for TLS")
    .option("--client-key <path>", "client key for TLS")
    .option("--insecure-skip-tls-verify", "do not check the API server's certificate")
    .option("--tls-server-name <name>", "name expected in the API server's certificate")
    .option("--request-timeout <duration>", "limit of a single request to the API server")
    .optionsGroup(headings.global)
    .option("--output <syntax>", "json, json-stream or yaml, in an envelope {cmd, stdout, stderr, err}")
    .option("--format <syntax>", "json, json-stream or yaml, the bare result")
    .option("--progress <mode>", "auto, plain or quiet")
    .option("--config <path>", "configuration file")
    .option("--verbose", "show what caused an error")
    .addOption(new Option("--no-report", "accepted for compatibility: nothing is ever reported").hideHelp());
}

const appendValue = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  value,
];

const appendList = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  ...value.split(",").filter((item) => item !== ""),
];
