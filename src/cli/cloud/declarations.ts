// Commands and flags of the cloud server, declared for commander; program.ts has all others.
import { Option } from "commander";
import type { Command } from "commander";
import { addConnectFlags } from "#cli/flag-declarations.ts";
import type { DashboardFlags } from "#cli/commands/dashboard.ts";
import type { LoginFlags } from "#cli/commands/login.ts";
import { groups } from "#cli/help-groups.ts";
import type { Run } from "#cli/program.ts";

/** What a command does when it is called with these arguments. */
type Declare = (command: Command, run: (args: readonly unknown[]) => Run) => void;

export function declareLogin(program: Command, declare: Declare): void {
  const login = program
    .command("login")
    .helpGroup(groups.session)
    .usage("[flags]")
    .summary("Log in to a cloud server")
    .description("Log in to a cloud server, for preview URLs and the shared dashboard; nothing else needs it.")
    .option("--cloud-url <url>", "address of the server (default: TELEPRESENCE_CLOUD_URL, or where you were last)")
    .option("--device", "show a code to be entered in a browser anywhere; so without a browser here")
    .option("--api-key <key>", "log in with a key, for automation; - reads it from standard input")
    .addOption(new Option("--apikey <key>", "older spelling of --api-key").hideHelp());
  declare(login, () => async (context) => {
    const { runLogin } = await import("#cli/commands/login.ts");
    const { apikey, ...flags } = login.opts<LoginFlags & { readonly apikey?: string }>();
    return runLogin(context, apikey === undefined ? flags : { apiKey: apikey, ...flags });
  });
  const logout = program.command("logout").helpGroup(groups.session).usage("[flags]");
  logout.description("Log out of the cloud server");
  declare(logout, () => async (context) => (await import("#cli/commands/logout.ts")).runLogout(context));
}

export function declareDashboard(program: Command, declare: Declare): void {
  const dashboard = program
    .command("dashboard")
    .helpGroup(groups.other)
    .summary("Open the dashboard in the browser")
    .description(
      "Open the dashboard of your team's cloud server in the browser: clusters, intercepts and previews; logs in when needed. With --local a page on this machine shows the requests of your own intercepts: live, to search, save, send again, and compare with the pod's answer; connects when needed.",
    )
    .usage("[--local] [flags]")
    .option("--local", "the requests of your own intercepts, on this machine alone; needs no login")
    .option(
      "--hide <names...>",
      "with --local: hide the values of these headers and fields too; * stands for anything",
    );
  addConnectFlags(dashboard);
  declare(dashboard, () => async (context) => {
    const { runDashboard } = await import("#cli/commands/dashboard.ts");
    return runDashboard(context, dashboard.opts<DashboardFlags>());
  });
}

export function declareCloud(program: Command, declare: Declare): void {
  const cloud = program
    .command("cloud")
    .argument("<what>", "serve; see 'telepresence cloud serve --help'")
    .argument("[flags...]", "the server's own flags")
    .allowUnknownOption()
    .helpGroup(groups.other)
    .summary("Run the server behind login, previews and the dashboard")
    .description("Run the server behind login, previews and the dashboard, for a team, on one port.")
    .usage("serve [flags]");
  declare(cloud, ([what, words]) => async (context) => {
    const { runCloud } = await import("#cli/commands/cloud.ts");
    return runCloud(context, what as string, words as readonly string[]);
  });
}
