// `logout`: the server ends the login, and this laptop forgets it. A key is forgotten here only: others may use it.
import { z } from "zod";
import { formatError, isAppError, toAppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import { tellDaemon } from "#cli/cloud/login-use.ts";
import { CloudClient } from "#login/cloud-client.ts";
import { forgetLogin, readLogin, readSecret } from "#login/credentials.ts";
import { lockLogin } from "#login/current-login.ts";
import { cloudPaths } from "#wire/cloud-api.ts";

export async function runLogout(context: CommandContext): Promise<number> {
  const { machine, clock, interrupts, output } = context;
  const places = await machine.openCloudPlaces();
  using _lock = await lockLogin({ places, clock: context.clock, signal: context.interrupts.signal });
  const login = await readLogin(places);
  if (login === undefined) {
    output.line("Nobody is logged in here");
    output.data({ revoked: false });
    return 0;
  }
  const secret = await readSecret(places, login);
  await forgetLogin(places, login);
  if (secret === undefined && login.ended !== true) {
    output.warn("the keyring does not give the tokens here, so the server was not told: remove the laptop on its page");
  }
  let revoked = false;
  if (secret !== undefined && "refreshToken" in secret) {
    try {
      const client = new CloudClient({ url: login.url, clock, signal: interrupts.signal });
      await client.oauth(cloudPaths.revoke, { token: secret.refreshToken }, z.unknown());
      revoked = true;
    } catch (error) {
      if (isAppError(error, "cancelled")) throw error;
      output.warn(
        `the server was not told, and ends the login when it is not used for two months: ${formatError(toAppError(error))}`,
      );
    }
  }
  await tellDaemon(context);
  output.line("Logged out");
  output.data({ url: login.url, name: login.name, revoked });
  return 0;
}
