// Logging in without a browser here: a code is shown, which a person types into a browser anywhere (RFC 8628).
import { AppError, isAppError } from "#base/error.ts";
import type { CommandContext } from "#cli/context.ts";
import type { CloudPlaces } from "#cli/machine.ts";
import { cloudPaths, deviceAnswer, deviceGrantType } from "#wire/cloud-api.ts";
import type { OAuthError, TokenAnswer } from "#wire/cloud-api.ts";
import type { CloudClient } from "#login/cloud-client.ts";

/** Undefined when the server could not be asked just now: a person may be typing the code meanwhile. */
async function poll(client: CloudClient, deviceCode: string): Promise<TokenAnswer | OAuthError | undefined> {
  try {
    return await client.token({ grant_type: deviceGrantType, device_code: deviceCode });
  } catch (error) {
    if (isAppError(error, "unreachable") || isAppError(error, "timeout")) return undefined;
    throw error;
  }
}

export async function logInByDeviceCode(
  { clock, interrupts, output }: CommandContext,
  client: CloudClient,
  { deviceName }: CloudPlaces,
): Promise<TokenAnswer> {
  const started = await client.oauth(cloudPaths.device, { device: deviceName }, deviceAnswer);
  if ("error" in started) throw new AppError("protocol", `${client.url} gives no codes: ${started.error}`);
  output.tell(`Open ${started.verification_uri} in a browser on any machine and enter the code ${started.user_code}`);
  output.progress("Waiting for the code to be entered...");
  const until = clock.now() + started.expires_in * 1000;
  let intervalMs = started.interval * 1000;
  while (clock.now() < until) {
    await clock.sleep(intervalMs, interrupts.signal);
    const answer = await poll(client, started.device_code);
    if (answer === undefined) continue;
    if (!("error" in answer)) return answer;
    if (answer.error === "slow_down") intervalMs += 5000;
    else if (answer.error === "access_denied")
      throw new AppError("denied", "Login aborted: it was refused in the browser");
    else if (answer.error !== "authorization_pending") break;
  }
  throw new AppError("timeout", "the code has expired before anybody entered it", {
    hint: "run telepresence login again",
  });
}
