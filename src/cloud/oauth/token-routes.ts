// What programs ask without a cookie: a device code, tokens, revocation. Errors are OAuth's own.
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { RateLimit, tooMany } from "#cloud/web/rate-limits.ts";
import { fieldOf } from "#cloud/web/browser.ts";
import type { Parts, RequestContext, Route } from "#cloud/web/route.ts";
import { cloudClientId, cloudPaths, deviceGrantType } from "#wire/cloud-api.ts";
import type { DeviceAnswer, OAuthError, TokenAnswer } from "#wire/cloud-api.ts";
import { issueDeviceCode, pollDevice, pollSeconds, redeemCode } from "./grants.ts";
import { auditLogin } from "./login-audit.ts";
import { readDeviceName } from "./device-name.ts";
import { endLogin, openLogin, refreshLogin } from "./logins.ts";

/** chosen: device codes that one address asks for; wrong codes and tokens of one address. */
const [deviceRate, wrongRate] = [
  { burst: 20, perSecond: 1 / 10 },
  { burst: 60, perSecond: 1 / 5 },
];

export function tokenRoutes(parts: Parts): readonly Route[] {
  const devices = new RateLimit(deviceRate, parts.clock);
  const wrong = new RateLimit(wrongRate, parts.clock);
  const { database } = parts;
  return [
    {
      method: "POST",
      path: cloudPaths.device,
      access: "client",
      handle: (context) => startDevice(context, parts, devices),
    },
    {
      method: "POST",
      path: cloudPaths.token,
      access: "client",
      handle: async (context) => {
        const address = context.get("address");
        if (!wrong.has(address)) throw tooMany();
        const answer = await answerToken(context, parts);
        if ("error" in answer && answer.error === "invalid_grant") wrong.tryTake(address);
        return sent(context, answer);
      },
    },
    {
      method: "POST",
      path: cloudPaths.revoke,
      access: "client",
      handle: async (context) => {
        const ended = await endLogin(database, await fieldOf(context, "token"));
        if (ended !== undefined) await auditLogin(parts, ended, "login.revoked");
        return context.json({}); // RFC 7009: what is not there is revoked
      },
    },
  ];
}

async function startDevice(
  context: RequestContext,
  { config, database, clock }: Parts,
  devices: RateLimit,
): Promise<Response> {
  devices.take(context.get("address"));
  if ((await fieldOf(context, "client_id")) !== cloudClientId) return sent(context, { error: "invalid_client" });
  const device = readDeviceName(await fieldOf(context, "device"));
  const { deviceCode, userCode, expiresSeconds } = await issueDeviceCode(database, device, clock.wallMs());
  const uri = `${config.url.origin}${cloudPaths.deviceCode}`;
  const answer: DeviceAnswer = {
    device_code: deviceCode,
    user_code: userCode,
    verification_uri: uri,
    verification_uri_complete: `${uri}?code=${userCode}`,
    expires_in: expiresSeconds,
    interval: pollSeconds,
  };
  return context.json(answer);
}

async function answerToken(context: RequestContext, parts: Parts): Promise<TokenAnswer | OAuthError> {
  if ((await fieldOf(context, "client_id")) !== cloudClientId) return { error: "invalid_client" };
  const type = await fieldOf(context, "grant_type");
  if (type === "authorization_code") return byCode(context, parts);
  if (type === "refresh_token") return byRefresh(context, parts);
  if (type === deviceGrantType) return byDevice(context, parts);
  return { error: "unsupported_grant_type" };
}

async function byCode(context: RequestContext, parts: Parts): Promise<TokenAnswer | OAuthError> {
  const { database, clock } = parts;
  const given = {
    code: await fieldOf(context, "code"),
    verifier: await fieldOf(context, "code_verifier"),
    redirectUri: await fieldOf(context, "redirect_uri"),
  };
  const granted = await redeemCode(database, given, clock.wallMs());
  if (granted === undefined)
    return { error: "invalid_grant", error_description: "the code was used, has expired, or is another's" };
  const answer = await openLogin(database, granted, clock.wallMs());
  await auditLogin(parts, granted, "login.laptop");
  return answer;
}

async function byRefresh(context: RequestContext, parts: Parts): Promise<TokenAnswer | OAuthError> {
  const refreshed = await refreshLogin(parts.database, await fieldOf(context, "refresh_token"), parts.clock.wallMs());
  if (refreshed.kind === "refreshed") return refreshed.answer;
  if (refreshed.kind === "unknown") return { error: "invalid_grant", error_description: "the login has ended" };
  await auditLogin(parts, refreshed, "login.reused");
  return { error: "invalid_grant", error_description: "the login was used in two places and has ended" };
}

async function byDevice(context: RequestContext, parts: Parts): Promise<TokenAnswer | OAuthError> {
  const { database, clock } = parts;
  const polled = await pollDevice(database, await fieldOf(context, "device_code"), clock.wallMs());
  switch (polled) {
    case "waiting":
      return { error: "authorization_pending" };
    case "slow_down":
      return { error: "slow_down" };
    case "denied":
      return { error: "access_denied" };
    case "expired":
      return { error: "expired_token" };
    default: {
      const answer = await openLogin(database, polled, clock.wallMs());
      await auditLogin(parts, polled, "login.laptop");
      return answer;
    }
  }
}

function sent(context: RequestContext, answer: TokenAnswer | OAuthError): Response {
  const status: ContentfulStatusCode = !("error" in answer) ? 200 : answer.error === "invalid_client" ? 401 : 400;
  return context.json(answer, status);
}
