// `login`: by the browser, by a code where there is none, or with a key. Needed for previews and the shared dashboard
// only.
import { text } from "node:stream/consumers";
import { z } from "zod";
import { AppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { logInByBrowser } from "#cli/cloud/browser-login.ts";
import { CloudClient } from "#login/cloud-client.ts";
import { readLogin, readSecret, saveLogin, toSecret } from "#login/credentials.ts";
import type { CloudLogin, CloudSecret } from "#login/credentials.ts";
import { lockLogin } from "#login/current-login.ts";
import { tellDaemon } from "#cli/cloud/login-use.ts";
import { logInByDeviceCode } from "#cli/cloud/device-login.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { cloudPaths } from "#wire/cloud-api.ts";
import type { MeAnswer } from "#wire/cloud-api.ts";

export interface LoginFlags {
  readonly cloudUrl?: string;
  readonly device?: boolean;
  readonly apiKey?: string;
}

export async function runLogin(context: CommandContext, flags: LoginFlags): Promise<number> {
  const { url, me, kept } = await logIn(context, flags);
  context.output.data({ url, name: me.name, email: me.email, teams: me.teams.map((team) => team.name), kept });
  return 0;
}

export interface NewLogin {
  readonly url: string;
  readonly me: MeAnswer;
  readonly kept: "keyring" | "file";
}

/** Also how a command that needs a login gets one. */
export async function logIn(context: CommandContext, flags: LoginFlags): Promise<NewLogin> {
  const { machine, environment, clock, interrupts, output } = context;
  if (flags.device === true && flags.apiKey !== undefined) {
    throw new AppError("usage", "--device and --api-key exclude each other");
  }
  const places = await machine.openCloudPlaces();
  const before = await readLogin(places).catch(() => undefined); // an unreadable one is written anew
  const url = serverUrl(flags.cloudUrl ?? environment.all["TELEPRESENCE_CLOUD_URL"] ?? before?.url);
  const client = new CloudClient({ url, clock, signal: interrupts.signal });
  const secret = await obtain(context, client, { flags, places });
  const me = await client.me("key" in secret ? secret.key : secret.accessToken);
  const kept = await replaceLogin(context, places, { login: { url, name: me.name, email: me.email }, secret });
  await tellDaemon(context);
  output.line("Login successful.");
  output.line(`Logged in as ${me.name} at ${url}`);
  return { url, me, kept };
}

/** The one there was ends: nothing here knows of it any more. */
async function replaceLogin(
  context: CommandContext,
  places: CloudPlaces,
  { login, secret }: { readonly login: CloudLogin; readonly secret: CloudSecret },
): Promise<"keyring" | "file"> {
  using _lock = await lockLogin({ places, clock: context.clock, signal: context.interrupts.signal });
  const before = await readLogin(places).catch(() => undefined);
  const old = before && (await readSecret(places, before));
  const kept = await saveLogin(places, login, secret);
  if (before !== undefined && before.url !== login.url) await places.keyring?.remove(before.url);
  if (before !== undefined && old !== undefined && "refreshToken" in old) {
    const client = new CloudClient({ url: before.url, clock: context.clock, signal: context.interrupts.signal });
    await client.oauth(cloudPaths.revoke, { token: old.refreshToken }, z.unknown()).catch(() => undefined); // ends by itself
  }
  return kept;
}

/** An origin; plain HTTP only to this machine, because tokens go over it. */
function serverUrl(text: string | undefined): string {
  if (text === undefined) {
    throw new AppError("usage", "no cloud server is known here; expected --cloud-url https://NAME");
  }
  const url = URL.parse(text.includes("://") ? text : `https://${text}`);
  if (url === null || !/^https?:$/.test(url.protocol) || url.href !== `${url.origin}/`) {
    throw new AppError("usage", `--cloud-url is "${text}", expected https://NAME without a path`);
  }
  const here = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol === "https:" || here) return url.origin;
  throw new AppError("usage", `--cloud-url is "${text}", which would carry tokens in plain text; expected https`);
}

async function obtain(
  context: CommandContext,
  client: CloudClient,
  { flags, places }: { readonly flags: LoginFlags; readonly places: CloudPlaces },
): Promise<CloudSecret> {
  const key = await readKey(context, flags);
  if (key !== undefined) return { key };
  const logIn = flags.device === true || !places.hasBrowser ? logInByDeviceCode : logInByBrowser;
  return toSecret(await logIn(context, client, places), context.clock.wallMs());
}

/** Other people on this machine see a command's words, so the word may be `-`. */
async function readKey({ environment, output }: CommandContext, flags: LoginFlags): Promise<string | undefined> {
  const { apiKey, device } = flags;
  const given = apiKey ?? (device === true ? undefined : environment.all["TELEPRESENCE_API_KEY"]);
  if (given === undefined || (apiKey === undefined && given === "")) return undefined;
  if (apiKey !== undefined && apiKey !== "-") {
    output.warn(
      "others on this machine can see the key in the list of processes; --api-key - reads it from standard input",
    );
  }
  const key = (given === "-" ? await text(process.stdin) : given).trim();
  if (/^tpk_[\w-]{20,200}$/.test(key)) return key;
  throw new AppError("usage", "the key does not look like one, expected tpk_ and letters");
}
