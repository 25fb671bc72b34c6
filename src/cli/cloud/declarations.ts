// Commands and flags of the cloud server, declared for commander; program.ts has all others.
import { Option } from "commander";
import type { Command } from "commander";
import { addConnectFlags, addIngressFlags } from "#cli/flags/flag-declarations.ts";
import type { CloudInstallFlags, CloudUninstallFlags } from "#cli/commands/cloud-install.ts";
import type { DashboardFlags } from "#cli/commands/dashboard.ts";
import type { CreateFlags, ShareFlags } from "#cli/commands/preview.ts";
import type { LoginFlags } from "#cli/commands/login.ts";
import { groups } from "#cli/flags/help-groups.ts";
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
    .argument("<what>", "serve, install or uninstall; see 'telepresence cloud serve --help'")
    .argument("[flags...]", "the server's own flags")
    .allowUnknownOption()
    .helpGroup(groups.other)
    .summary("Run the server behind login, previews and the dashboard")
    .description("Run the server behind login, previews and the dashboard, for a team, on one port.")
    .usage("serve|install|uninstall [flags]");
  declareCloudInstall(cloud, declare);
  declare(cloud, ([what, words]) => async (context) => {
    const { runCloud } = await import("#cli/commands/cloud.ts");
    return runCloud(context, what as string, words as readonly string[]);
  });
}

export function declarePreview(program: Command, declare: Declare): void {
  const preview = program
    .command("preview")
    .helpGroup(groups.traffic)
    .summary("Show an intercept to others by a URL")
    .description("Show an intercept to others by a URL of the cloud server that you are logged in at.")
    .usage("create|remove|list|share|public|private [name] [flags]");
  const create = preview.command("create").argument("<intercept>").usage("<intercept> [flags]");
  create
    .description("Make a preview URL for an intercept that is there. Asks how requests come into the cluster.")
    .option("-b, --banner", "a banner on its pages (default: true)")
    .addOption(new Option("--no-banner").hideHelp())
    .option("--public", "open to anybody who has the address, not to people of the team alone");
  addIngressFlags(create);
  addConnectFlags(create);
  declare(create, ([name]) => async (context) => {
    const { runPreviewCreate } = await import("#cli/commands/preview.ts");
    return runPreviewCreate(context, name as string, create.opts<CreateFlags>());
  });
  const remove = preview.command("remove").argument("<name>").usage("<name> [flags]");
  remove.description("Remove a preview URL; its intercept stays");
  declare(remove, ([name]) => async (context) => {
    const { runPreviewRemove } = await import("#cli/commands/preview.ts");
    return runPreviewRemove(context, name as string);
  });
  const list = preview.command("list").usage("[flags]").description("List the previews of your teams");
  declare(list, () => async (context) => (await import("#cli/commands/preview.ts")).runPreviewList(context));
  const share = preview.command("share").argument("<name>").usage("<name> [flags]");
  share
    .description("Make a link by which whoever has it gets in without a login")
    .option("--expires <duration>", "how long it is good for: 30m, 24h (default), 7d")
    .option("--list", "show the links there are")
    .option("--revoke [id]", "revoke a link, or all of them");
  declare(share, ([name]) => async (context) => {
    const { runPreviewShare } = await import("#cli/commands/preview.ts");
    return runPreviewShare(context, name as string, share.opts<ShareFlags>());
  });
  for (const [word, access, text] of accessCommands) {
    const command = preview.command(word).argument("<name>").usage("<name> [flags]").description(text);
    declare(command, ([name]) => async (context) => {
      const { runPreviewAccess } = await import("#cli/commands/preview.ts");
      return runPreviewAccess(context, name as string, access);
    });
  }
}

const accessCommands = [
  ["public", "public", "Open a preview to anybody who has the address"],
  ["private", "team", "Open a preview to people of the team alone, who log in"],
] as const;

function declareCloudInstall(cloud: Command, declare: Declare): void {
  const namespace = "namespace of the server (default: telepresence-cloud)";
  const install = cloud
    .command("install")
    .description(
      "Put the cloud server into a cluster: Deployment, Service, Ingress, Secret, volume. Again to change it.",
    )
    .usage("--url <https://name> [flags]")
    .option("--url <url>", "what people will type to come there")
    .option("--preview-domain <domain>", "previews are *.DOMAIN, which leads to the same Ingress")
    .option("--cloud-namespace <namespace>", namespace)
    .option("--print", "print the manifests, without the Secret, and change nothing")
    .option("--print-secret", "print the Secret of these files with them, in plain text")
    .option("--ingress-class <name>", "class of the Ingress (default: the cluster's)")
    .option("--tls-secret <name>", "Secret with the certificate for the URL's name")
    .option("--preview-tls-secret <name>", "Secret with the certificate for *.DOMAIN")
    .option("--no-ingress", "make none; something of yours leads to service telepresence-cloud")
    .option("--trusted-proxies <ranges>", "addresses whose X-Forwarded-For counts (default: private ranges)")
    .option("--storage-size <size>", "of the volume for SQLite (default: 1Gi)")
    .option("--storage-class <name>", "of that volume (default: the cluster's)")
    .option("--no-storage", "no volume: everything is forgotten when the pod ends")
    .option("--database-url-file <file>", "file with postgres://USER:PASSWORD@HOST/NAME instead of SQLite")
    .option("--oidc-issuer <url>", "OpenID Connect provider by which people log in (default: built-in accounts)")
    .option("--oidc-client-id <id>", "the server's name at the provider")
    .option("--oidc-client-secret-file <file>", "file with its secret there")
    .option("--oidc-groups-claim <name>", "claim that lists a person's groups (default: groups)")
    .option("--oidc-admin-group <name>", "group whose members are administrators")
    .option("--metrics-token-file <file>", "file with the token by which Prometheus reads /metrics")
    .option("--extra-ca-file <file>", "certificates (PEM) of authorities of yours that the server is to trust, too")
    .option("--secret <name>", "a Secret of yours instead of one made of these files")
    .option(
      "--secret-keys <keys>",
      "what it has of database, oidc-client-secret, metrics-token, extra-ca (default: database)",
    )
    .option("--image <reference>", "image of the server")
    .option("--image-pull-policy <policy>", "Always, IfNotPresent or Never");
  declare(install, () => async (context) => {
    const { runCloudInstall } = await import("#cli/commands/cloud-install.ts");
    return runCloudInstall(context, install.opts<CloudInstallFlags>());
  });
  const uninstall = cloud
    .command("uninstall")
    .description("Take the cloud server out of a cluster again; what people have stored stays unless told otherwise.")
    .usage("[flags]")
    .option("--cloud-namespace <namespace>", namespace)
    .option("--delete-data", "the volume with the SQLite file, too")
    .option("-y, --yes", "do not ask");
  declare(uninstall, () => async (context) => {
    const { runCloudUninstall } = await import("#cli/commands/cloud-install.ts");
    return runCloudUninstall(context, uninstall.opts<CloudUninstallFlags>());
  });
}
