// `dashboard`: the page that a team shares, at the cloud server one is logged in at; or with `--local` a page on this
// machine that shows the requests of one's own intercepts. The local page's address lets in whoever has it, so it is
// printed, and the browser is started with another one, which is good once: everybody sees a program's words.
import { AppError, isAppError } from "#base/error.ts";
import { loginUse } from "#cli/cloud/login-use.ts";
import { connectIfNeeded } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import { currentLogin } from "#login/current-login.ts";
import { cloudPaths } from "#wire/cloud-api.ts";

/** chosen: the daemon only opens a port. */
const inspectLimitMs = 10_000;

export interface DashboardFlags {
  readonly local?: boolean;
  readonly hide?: readonly string[];
}

export async function runDashboard(context: CommandContext, flags: DashboardFlags): Promise<number> {
  return flags.local === true ? openLocal(context, flags) : openShared(context, flags);
}

async function openLocal(context: CommandContext, flags: DashboardFlags): Promise<number> {
  using connected = await connectIfNeeded(context);
  const params = { hide: [...(flags.hide ?? [])] };
  const { url, openUrl } = await connected.daemon.client.call("inspect", params, inspectLimitMs);
  const { output } = context;
  const opened = openUrl !== undefined && (await openBrowser(context, openUrl));
  if (opened) output.line("Opened in your browser; should no page appear, the address is:");
  else output.line("Open this address in your browser; who has it sees the requests of your intercepts:");
  output.line(url);
  output.data({ url });
  return 0;
}

async function openShared(context: CommandContext, flags: DashboardFlags): Promise<number> {
  if (flags.hide !== undefined) {
    throw new AppError("usage", "--hide is for the page on this machine, expected --local with it");
  }
  const server = await loggedInAt(context);
  const url = `${server}${cloudPaths.dashboard}`;
  const { output } = context;
  if (await openBrowser(context, url)) output.line(`Opened in your browser: ${url}`);
  else output.line(`No browser could be opened; go to ${url}`);
  output.data({ url });
  return 0;
}

/** Logs in where nobody is, or where the login has ended. */
async function loggedInAt(context: CommandContext): Promise<string> {
  try {
    const login = await currentLogin(await loginUse(context));
    if (login !== undefined) return login.url;
  } catch (error) {
    if (!isAppError(error, "unauthorized")) throw error;
  }
  const { logIn } = await import("./login.ts");
  try {
    return (await logIn(context, {})).url;
  } catch (error) {
    if (!isAppError(error, "usage")) throw error;
    throw new AppError("usage", "the dashboard that a team shares is on a cloud server, and none is known here", {
      hint: "`telepresence login --cloud-url https://NAME` logs in at your team's, `telepresence dashboard --local` shows your own intercepts without one",
    });
  }
}

async function openBrowser({ machine }: CommandContext, url: string): Promise<boolean> {
  const { hasBrowser, openBrowser: open } = await machine.openCloudPlaces();
  return hasBrowser && (await open(url));
}
